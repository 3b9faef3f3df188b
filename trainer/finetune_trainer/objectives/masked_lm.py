"""Predict hidden tokens from both sides of them (Devlin et al. 2019, arXiv:1810.04805)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import pyarrow
import torch
from transformers import AutoModelForMaskedLM

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.objectives.masked_lm import MaskedLMConfig as Options
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout, collate
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.preprocessing.examples import EncodedRow, split_or_truncate
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.base import BatchStatistics, Objective
from finetune_trainer.objectives.forward import forward
from finetune_trainer.objectives.losses.cross_entropy import guesses, summed_cross_entropy
from finetune_trainer.objectives.tokenization import fingerprint, frame
from finetune_trainer.protocol.outcome import ConfigurationError

BEGINS = "begins"  # of each token: 1 if a word begins with it, 0 if one goes on, or
NEVER = -1  # if the tokenizer added it: it is never hidden


class MaskedLM(Objective):
    """Cross entropy of the hidden tokens, in float32.

    Which tokens are hidden is drawn anew in each pass over the data, and depends on the seed, the pass and the row alone.
    A batch has `input_ids`, `labels` (-100 but at hidden tokens) and `attention_mask` or `position_ids`.
    """

    task: ClassVar[str] = "fill-mask"
    auto_class: ClassVar[Any] = AutoModelForMaskedLM
    fields: ClassVar[Mapping[str, pyarrow.DataType]] = {
        TOKENS: pyarrow.list_(pyarrow.int32()),
        BEGINS: pyarrow.list_(pyarrow.int8()),
    }
    causal: ClassVar[bool | None] = False

    def __init__(self, spec: TrainSpec, processor: Any) -> None:
        super().__init__(spec, processor)
        options = spec.objective.config
        assert isinstance(options, Options)
        self._options = options
        self._frames: Sequence[Tokens] = frame(processor)
        if processor.mask_token_id is None:
            raise ConfigurationError(
                "spec.model.tokenizer: it has no mask token to hide others behind: set mask_token in its "
                "tokenizer_config.json, or use a tokenizer made for masked language models"
            )
        if options.whole_word and not processor.is_fast:
            raise ConfigurationError(
                "spec.objective: wholeWord needs a tokenizer that tells where words begin: use its fast version, or set "
                "wholeWord: false"
            )

    @property
    def identity(self) -> Any:
        return [fingerprint(self.processor), self.spec.data.max_length, self.spec.overlong, self._options.whole_word]

    def encode(self, records: Sequence[Row]) -> Iterator[EncodedRow]:
        """A document is its text between the tokens that the tokenizer puts around one; so is each of its pieces."""
        for marked in self._marked([record.values["text"] for record in records]):
            # Positions are cut instead of tokens, since there are two numbers at each.
            pieces, status = split_or_truncate(np.arange(marked.shape[1]), self._room, self.spec.overlong)
            yield EncodedRow([self._example(marked[:, piece]) for piece in pieces], status)

    def collate(self, rows: Sequence[Sample], randoms: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """Tokens are hidden one by one, or word by word."""
        hidden = [self._hide(row, random) for row, random in zip(rows, randoms, strict=True)]
        changed = [{**row, TOKENS: tokens} for row, (tokens, _) in zip(rows, hidden, strict=True)]
        labels = [labels for _, labels in hidden]
        return collate(changed, self.processor.pad_token_id, layout, labels=labels, causal=False)

    def count(self, batch: Batch) -> Sequence[int]:
        """Hidden tokens."""
        return [int((batch["labels"] != IGNORE_INDEX).sum())]

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """Summed cross entropy of `model` on the batch."""
        logits = forward(model, batch).logits.flatten(0, 1)
        return summed_cross_entropy(logits, batch["labels"].flatten(), self.spec.training.label_smoothing)[None]

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: hidden tokens that were guessed, and all."""
        logits, labels = forward(model, batch).logits, batch["labels"]
        loss = summed_cross_entropy(logits.flatten(0, 1), labels.flatten())
        return BatchStatistics(loss[None], guesses(logits, labels))

    def metrics(self, losses: Sequence[float], statistics: np.ndarray[Any, Any]) -> dict[str, float]:
        """Loss, and the share of hidden tokens that were guessed."""
        guessed, hidden = statistics.tolist()
        return {"loss": losses[0], "accuracy": guessed / max(hidden, 1)}

    @property
    def _room(self) -> int:
        """Tokens of text in a row."""
        return self.spec.data.max_length - sum(map(len, self._frames))

    def _marked(self, texts: Sequence[str]) -> Iterator[Tokens]:
        """Each text's tokens and, below them, whether a word begins there [2, tokens]."""
        encoded = self.processor(
            list(texts), add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )
        for index, ids in enumerate(encoded["input_ids"]):
            yield np.stack([np.array(ids, np.int32), self._begins(encoded, index, len(ids))])

    def _begins(self, encoded: Any, index: int, count: int) -> Tokens:
        if not self._options.whole_word:
            return np.ones(count, np.int32)
        words = np.array([-1 if word is None else word for word in encoded.word_ids(index)], np.int32)
        begins: Tokens = np.diff(words, prepend=-2) != 0
        return begins.astype(np.int32)

    def _example(self, *marked: Tokens) -> Mapping[str, Any]:
        """Pieces of text between the tokens that the tokenizer puts around them."""
        frames = [np.stack([tokens, np.full_like(tokens, NEVER)]) for tokens in self._frames]
        whole = np.concatenate([frames[0], *chain.from_iterable(zip(map(_piece, marked), frames[1:], strict=True))], axis=1)
        return {TOKENS: whole[0], BEGINS: whole[1].astype(np.int8)}

    def _hide(self, row: Sample, random: np.random.Generator) -> tuple[Tokens, Tokens]:
        """The row's tokens as the model sees them, and the labels."""
        tokens, marks, options = row[TOKENS].astype(np.int64), row[BEGINS], self._options
        words = np.cumsum(marks == 1) - 1
        drawn = random.random(int((marks == 1).sum())) < options.probability
        hidden = (marks != NEVER) & np.append(drawn, False)[words]
        labels = np.where(hidden, tokens, IGNORE_INDEX)
        way = random.random(len(tokens))
        tokens[hidden & (way < options.mask_share)] = self.processor.mask_token_id
        other = hidden & (way >= options.mask_share) & (way < options.mask_share + options.random_share)
        tokens[other] = random.integers(0, len(self.processor), int(other.sum()))
        return tokens, labels


def _piece(marked: Tokens) -> Tokens:
    """A piece of text begins with a word, or the rest of one that a cut divided."""
    begun = marked.copy()
    begun[1, :1] = 1
    return begun
