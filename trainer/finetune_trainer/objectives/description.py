"""A sample in words: what the model reads, and what it learns to predict, for people to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from finetune_trainer.config.base import Section
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, document_starts
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens, document_lengths
from finetune_trainer.huggingface.special_tokens import marker_ids

NameLabel = Callable[[int], str]


class Segment(Section):
    """Consecutive tokens that are treated alike."""

    text: str
    tokens: list[int] = Field(default_factory=list, description="Their ids; none for a text that is not tokenized.")
    trained: bool = Field(False, description="Whether these tokens are predicted, so that the model learns from them.")
    special: bool = Field(False, description="Whether these are special or added tokens, such as the end of a text.")
    target: str | None = Field(None, description="What is predicted here, if it is not the text itself.")
    target_tokens: list[int] = Field(default_factory=list, description="The ids that are predicted, if they are others.")

    @property
    def predicted_tokens(self) -> list[int]:
        """The ids that the model learns to predict here."""
        if not self.trained:
            return []
        return self.tokens if self.target is None else self.target_tokens


class Picture(Section):
    """An image as the model gets it."""

    width: int
    height: int
    png: str = Field(description="The image as base64-encoded PNG, made smaller if it is large.")


class Block(Section):
    """One of the things that a sample consists of: a document, a target, a label, or an image."""

    name: str
    origin: str | None = Field(None, description="The file and row that it comes from, where that is known.")
    segments: list[Segment] = Field(default_factory=list)
    picture: Picture | None = None


def text_block(name: str, text: str, *, trained: bool = False) -> Block:
    """A block of one text, such as the name of a label."""
    return Block(name=name, segments=[Segment(text=text, trained=trained)])


def document_blocks(sample: Sample, batch: Batch, tokenizer: Any) -> list[Block]:
    """A block for each document of a sample that was collated alone; its targets are the batch's `labels`, if there are any."""
    tokens = batch.inputs[TOKENS][0].numpy()
    labels = batch.targets["labels"][0].numpy() if "labels" in batch.targets else None
    lengths, starts = document_lengths(sample).tolist(), document_starts(sample).tolist()
    blocks = []
    for number, (start, length) in enumerate(zip(starts, lengths, strict=True), start=1):
        part = slice(start, start + length)
        segments = token_segments(tokens[part], None if labels is None else labels[part], tokenizer)
        blocks.append(Block(name=f"document {number}" if len(lengths) > 1 else "document", segments=segments))
    return blocks


def row_block(name: str, batch: Batch, row: int, tokenizer: Any, *, with_labels: bool = False) -> Block:
    """One row of a batch that has the mask [rows, tokens], without its padding.

    `with_labels` reads its targets from the batch's `labels` [rows, tokens]; without, the row is only read.
    """
    length = int(batch.inputs["attention_mask"][row].sum())
    tokens = batch.inputs[TOKENS][row, :length].numpy()
    labels = batch.targets["labels"][row, :length].numpy() if with_labels else None
    return Block(name=name, segments=token_segments(tokens, labels, tokenizer))


class _Kind(NamedTuple):
    """How a token is treated; consecutive tokens of one kind form a segment."""

    trained: bool
    special: bool
    replaced: bool
    """Whether another token than itself is predicted."""
    position: int = 0
    """Distinguishes tokens that form a segment each."""


def token_segments(tokens: Tokens, labels: Tokens | None, tokenizer: Any, name_label: NameLabel | None = None) -> list[Segment]:
    """The segments of tokens [n] with the labels [n], -100 where nothing is predicted.

    Labels are tokens, unless `name_label` gives the name of each.
    """
    if labels is None:
        labels = np.full(len(tokens), IGNORE_INDEX)
    special_ids = marker_ids(tokenizer)

    def kind_of(index: int) -> _Kind:
        token, label = int(tokens[index]), int(labels[index])
        trained = label != IGNORE_INDEX
        replaced = trained and (name_label is not None or label != token)
        position = index if replaced and name_label is not None else -1
        return _Kind(trained, token in special_ids, replaced, position)

    segments = []
    for kind, group in groupby(range(len(tokens)), kind_of):
        indices = list(group)
        begin, end = indices[0], indices[-1] + 1
        target, target_tokens = None, []
        if kind.replaced and name_label:
            target = name_label(int(labels[begin]))
        elif kind.replaced:
            target, target_tokens = decode(labels[begin:end], tokenizer), labels[begin:end].tolist()
        segments.append(
            Segment(
                text=decode(tokens[begin:end], tokenizer, before=tokens[:begin]), tokens=tokens[begin:end].tolist(),
                trained=kind.trained, special=kind.special, target=target, target_tokens=target_tokens,
            )
        )  # fmt: skip
    return segments


def decode(tokens: Tokens, tokenizer: Any, before: Tokens | Sequence[int] = ()) -> str:
    """The text of tokens [n] with special tokens; the text depends on the token `before` them, such as for a blank between."""
    context = [int(token) for token in before[-1:]]
    ids = [int(token) for token in tokens]
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    context_text: str = tokenizer.decode(context, **options) if context else ""
    text: str = tokenizer.decode(context + ids, **options)
    if text.startswith(context_text):
        return text[len(context_text) :]
    alone: str = tokenizer.decode(ids, **options)  # the token before ends within a character
    return alone
