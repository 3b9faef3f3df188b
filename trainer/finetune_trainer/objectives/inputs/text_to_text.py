"""Texts to read and texts to write, for encoder-decoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout, collate, pad_to_shape, padded_length
from finetune_trainer.data.loading.dataset import TOKENS, Tokens
from finetune_trainer.objectives.description import Block, row_block, token_segments
from finetune_trainer.objectives.inputs.tokenization import append_eos


def target_tokens(tokens: Tokens, eos: int) -> Tokens:
    """The tokens to write: exactly one end-of-text token at the end, and none at the start, where it would end generation."""
    if len(tokens) and tokens[0] == eos:
        tokens = tokens[1:]
    # mBART puts its language token after the end.
    return tokens if eos in tokens[-2:] else append_eos(tokens, eos)


def collate_pairs(inputs: Sequence[Tokens], targets: Sequence[Tokens], tokenizer: Any, layout: Layout) -> Batch:
    """A batch of texts to read and their targets, both padded at the right.

    Inputs: `input_ids` and `attention_mask` [sequences, tokens]. Targets: `labels` [sequences, tokens of the longest target],
    -100 on padding.
    """
    batch = collate([{TOKENS: tokens} for tokens in inputs], tokenizer.pad_token_id, layout)
    longest = padded_length(max(map(len, targets), default=1))
    batch.targets["labels"] = pad_to_shape(targets, (len(batch.inputs[TOKENS]), longest), IGNORE_INDEX)
    return batch


def pair_blocks(batch: Batch, tokenizer: Any) -> list[Block]:
    """The text to read and the target of a batch of one pair."""
    labels = batch.targets["labels"][0].numpy()
    target = labels[labels != IGNORE_INDEX]
    segments = token_segments(target, target, tokenizer)
    return [row_block("input", batch, 0, tokenizer), Block(name="target", segments=segments)]
