"""Predict each token from those before it (Radford et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow
import torch
from transformers import AutoModelForCausalLM

from finetune_trainer.config import TrainSpec
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout, collate, document_starts
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus, split_or_truncate
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.base import BatchStatistics, Objective
from finetune_trainer.objectives.forward import forward
from finetune_trainer.objectives.losses.cross_entropy import perplexity, summed_cross_entropy
from finetune_trainer.objectives.tokenization import ended, fingerprint, require_eos_token, tokenize


class CausalLM(Objective):
    """Cross entropy of the next token, in float32, over the positions whose label is not -100.

    A batch has `input_ids`, `labels` and, where given, `position_ids` and `attention_mask`, all [sequences, tokens]. Labels
    stand at their own token's position, as in transformers; the shift by one happens in the loss.
    """

    task: ClassVar[str] = "text-generation"
    auto_class: ClassVar[Any] = AutoModelForCausalLM
    adapter_task: ClassVar[str | None] = "CAUSAL_LM"
    fields: ClassVar[Mapping[str, pyarrow.DataType]] = {TOKENS: pyarrow.list_(pyarrow.int32())}
    causal: ClassVar[bool | None] = True

    def __init__(self, spec: TrainSpec, processor: Any) -> None:
        super().__init__(spec, processor)
        require_eos_token(processor)

    @property
    def identity(self) -> Any:
        return [fingerprint(self.processor), self.spec.data.max_length, self.spec.overlong]

    def encode(self, records: Sequence[Row]) -> Iterator[EncodedRow]:
        """A document is the tokens its tokenizer begins a text with, the text, and one end-of-text token."""
        texts = [record.values["text"] for record in records]
        for text, tokens in zip(texts, tokenize(texts, self.processor), strict=True):
            if not text:
                yield EncodedRow([], EncodeStatus.EMPTY)
                continue
            whole = ended(tokens, self.processor.eos_token_id)
            pieces, status = split_or_truncate(whole, self.spec.data.max_length, self.spec.overlong, overlap=1)
            yield EncodedRow([{TOKENS: piece} for piece in pieces], status)

    def collate(self, rows: Sequence[Sample], randoms: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """A document's first token is no label, as another document (or nothing) stands before it."""
        labels = [self.labels(row) for row in rows]
        for row, own in zip(rows, labels, strict=True):
            own[document_starts(row)] = IGNORE_INDEX
        return collate(rows, self.processor.pad_token_id, layout, labels=labels)

    def labels(self, row: Sample) -> Tokens:
        """What is to be learnt of a row, [tokens] int64: all its tokens."""
        return row[TOKENS].astype(np.int64)

    def count(self, batch: Batch) -> Sequence[int]:
        """Tokens predicted: the first of a sequence never is."""
        return [int((batch["labels"][:, 1:] != IGNORE_INDEX).sum())]

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """Summed cross entropy of `model` on the batch."""
        return self._loss_sum(model, batch, self.spec.training.label_smoothing)

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """The same without smoothing, whose loss no perplexity follows from."""
        return BatchStatistics(self._loss_sum(model, batch, 0.0), torch.zeros(0, dtype=torch.float64))

    def _loss_sum(self, model: Any, batch: Batch, smoothing: float) -> torch.Tensor:
        logits = forward(model, batch, use_cache=False).logits
        return summed_cross_entropy(logits.flatten(0, 1), following(batch["labels"]).flatten(), smoothing)[None]

    def metrics(self, losses: Sequence[float], statistics: np.ndarray[Any, Any]) -> dict[str, float]:
        """Loss and perplexity."""
        [loss] = losses
        return {"loss": loss} | perplexity(loss)


def following(labels: torch.Tensor) -> torch.Tensor:
    """At each position the next one's label, [sequences, tokens]; shifting logits would copy the largest tensor there is."""
    return torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)
