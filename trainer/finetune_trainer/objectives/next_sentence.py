"""Predict hidden tokens, and whether one piece of text follows another (Devlin et al. 2019, arXiv:1810.04805)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import pyarrow
import torch
from transformers import AutoModelForPreTraining

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.objectives.next_sentence import NextSentenceConfig as Options
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout, pad_to_shape
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus
from finetune_trainer.data.records.row import Row
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.base import BatchStatistics
from finetune_trainer.objectives.forward import forward
from finetune_trainer.objectives.losses.cross_entropy import guesses, summed_cross_entropy
from finetune_trainer.objectives.masked_lm import MaskedLM
from finetune_trainer.objectives.tokenization import SEGMENTS, between, output_of

FOREIGN = "foreign"  # 0 if the second piece follows the first, or 1: so the models have it
FOREIGN_LABELS = "next_sentence_labels"
# A sentence ends before a new line, after a full stop and the like before a blank, or after those of Chinese and Japanese.
BOUNDARY = re.compile(r"(?<!\n)(?=\n)|(?<=[.!?])(?=\s)|(?<=[\u3002\uff01\uff1f])")


class NextSentence(MaskedLM):
    """Cross entropy of the hidden tokens, and that of whether the second piece follows the first; in float32.

    A batch has `input_ids`, `token_type_ids`, `labels` (-100 but at hidden tokens) and `attention_mask`, all [rows, tokens],
    and `next_sentence_labels` [rows].
    """

    auto_class: ClassVar[Any] = AutoModelForPreTraining
    fields: ClassVar[Mapping[str, pyarrow.DataType]] = {
        **MaskedLM.fields,
        SEGMENTS: pyarrow.list_(pyarrow.int8()),
        FOREIGN: pyarrow.int8(),
    }
    losses: Sequence[str] = ("masked", "nextSentence")
    causal: ClassVar[bool | None] = None

    def __init__(self, spec: TrainSpec, processor: Any) -> None:
        super().__init__(spec, processor)
        options = spec.objective.config
        assert isinstance(options, Options)
        self._share = options.next_sentence_share
        before, after = self._frames
        self._frames = [before, between(processor), after]

    @property
    def identity(self) -> Any:
        return [super().identity, self._share]

    def encode(self, records: Sequence[Row]) -> Iterator[EncodedRow]:
        """Pairs of pieces that together fill a row, as many as the document gives; one sentence alone gives none.

        What does not follow is of another of these documents. Where there is no other, all pairs follow.
        """
        texts = [record.values["text"] for record in records]
        of_texts = [sentences(text) for text in texts]
        marked = self._marked(list(chain.from_iterable(of_texts)))
        documents = [self._divided([next(marked) for _ in of_text]) for of_text in of_texts]
        others = [document for document in documents if document]
        position = 0  # of the document among those
        for text, document in zip(texts, documents, strict=True):
            if len(document) < 2:
                yield EncodedRow([], EncodeStatus.EMPTY)
            else:
                pairs = self._pairs(document, others[:position] + others[position + 1 :], _random_of(text))
                yield self._encoded(document, pairs)
            position += bool(document)

    def collate(self, rows: Sequence[Sample], randoms: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """The same as for masked texts, beside which piece a token belongs to, and whether the second follows."""
        batch = super().collate(rows, randoms, layout)
        batch[SEGMENTS] = pad_to_shape([row[SEGMENTS] for row in rows], batch[TOKENS].shape)
        batch[FOREIGN_LABELS] = torch.tensor([int(row[FOREIGN]) for row in rows] or [IGNORE_INDEX])
        return batch

    def count(self, batch: Batch) -> Sequence[int]:
        """Hidden tokens, and pairs."""
        return [*super().count(batch), int((batch[FOREIGN_LABELS] != IGNORE_INDEX).sum())]

    def start(self, model: Any, world: ProcessGroup) -> None:
        """Raises ConfigurationError for a model that does not compare two pieces."""
        output_of(model, "seq_relationship_logits", "use a family that is pretrained like BERT, such as ERNIE or MegatronBERT")

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """Summed cross entropies of `model` on the batch."""
        return _losses(forward(model, batch), batch)

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: hidden tokens that were guessed, and all; pairs that were, and all."""
        outputs = forward(model, batch)
        found = [
            guesses(outputs.prediction_logits, batch["labels"]),
            guesses(outputs.seq_relationship_logits, batch[FOREIGN_LABELS]),
        ]
        return BatchStatistics(_losses(outputs, batch), torch.cat(found))

    def metrics(self, losses: Sequence[float], statistics: np.ndarray[Any, Any]) -> dict[str, float]:
        """Both losses and their sum, and the shares of hidden tokens and of pairs that were guessed."""
        found = {"loss": sum(losses)}
        for name, loss, (right, count) in zip(self.losses, losses, statistics.reshape(2, 2).tolist(), strict=True):
            found |= {f"{name}.loss": loss, f"{name}.accuracy": right / max(count, 1)}
        return found

    def _divided(self, whole: Sequence[Tokens]) -> list[Tokens]:
        """Sentences [2, tokens], those longer than half a row in several pieces: so two always fit."""
        most = self._room // 2
        return [
            sentence[:, begin : begin + most] for sentence in whole for begin in range(0, sentence.shape[1], most)
        ]  # fmt: skip

    def _encoded(self, document: Sequence[Tokens], pairs: Iterator[Mapping[str, Any]]) -> EncodedRow:
        if sum(piece.shape[1] for piece in document) <= self._room:
            return EncodedRow(list(pairs), EncodeStatus.KEPT)
        match self.spec.overlong:
            case "Drop":
                return EncodedRow([], EncodeStatus.DROPPED)
            case "Truncate":
                return EncodedRow([next(pairs)], EncodeStatus.TRUNCATED)
            case "Split":
                return EncodedRow(list(pairs), EncodeStatus.SPLIT)

    def _pairs(
        self, document: Sequence[Tokens], others: Sequence[Sequence[Tokens]], random: np.random.Generator
    ) -> Iterator[Mapping[str, Any]]:
        """As much of the document as fits in a row is divided anywhere between two pieces.

        If another document's are to stand behind the first part, there are as many of them, so that their length tells little,
        and the second part begins the next row.
        """
        ends = np.cumsum([0, *(piece.shape[1] for piece in document)])
        begin = 0
        while begin + 1 < len(document):
            end = int(np.searchsorted(ends, ends[begin] + self._room, side="right")) - 1
            middle = int(random.integers(begin + 1, end))
            first, second = document[begin:middle], document[middle:end]
            foreign = len(others) > 0 and random.random() >= self._share
            if foreign:
                other = others[int(random.integers(len(others)))]
                start = int(random.integers(max(1, len(other) - len(second) + 1)))
                second = other[start : start + len(second)]
            yield self._pair(np.concatenate(first, axis=1), np.concatenate(second, axis=1), foreign)
            begin = middle if foreign else end

    def _pair(self, first: Tokens, second: Tokens, foreign: bool) -> Mapping[str, Any]:
        example = self._example(first, second[:, : self._room - first.shape[1]])
        before = len(self._frames[0]) + first.shape[1] + len(self._frames[1])
        return {**example, SEGMENTS: np.arange(len(example[TOKENS])) >= before, FOREIGN: int(foreign)}


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, each with the blanks before it."""
    return [sentence for sentence in BOUNDARY.split(text) if sentence.strip()]


def _losses(outputs: Any, batch: Batch) -> torch.Tensor:
    """The summed cross entropy of the hidden tokens, and that of the pairs [2]."""
    masked = summed_cross_entropy(outputs.prediction_logits.flatten(0, 1), batch["labels"].flatten())
    return torch.stack([masked, summed_cross_entropy(outputs.seq_relationship_logits, batch[FOREIGN_LABELS])])


def _random_of(text: str) -> np.random.Generator:
    """Random numbers that depend on the text alone."""
    return np.random.Generator(np.random.Philox(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest())))
