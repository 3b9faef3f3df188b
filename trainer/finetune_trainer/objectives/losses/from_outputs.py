"""Losses that are computed from the outputs of one forward pass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.base import Loss
from finetune_trainer.objectives.losses.cross_entropy import summed_cross_entropy


class BatchLoss(Loss[Batch]):
    """A loss that needs no other batch of the step."""

    def prepare_step(self, model: Any, batches: Sequence[Batch], group: ProcessGroup) -> Sequence[Batch]:
        """The batches, unchanged."""
        return batches


class OutputLoss(BatchLoss):
    """A loss of the model's outputs."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        """`label_smoothing` applies to training, never to an evaluation."""
        self.label_smoothing = label_smoothing

    def forward(self, model: Any, batch: Batch) -> Any:
        """The model's outputs."""
        return model(**batch.inputs)

    @abstractmethod
    def from_outputs(self, outputs: Any, batch: Batch, smoothing: float) -> torch.Tensor:
        """The sum of the terms of each loss, [losses]."""

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """The sum of the terms of each loss, with label smoothing."""
        return self.from_outputs(self.forward(model, batch), batch, self.label_smoothing)


class TokenLoss(OutputLoss):
    """Cross entropy, in float32, of each label that is not -100; `labels` and logits have the same [sequences, tokens]."""

    def labels(self, batch: Batch) -> torch.Tensor:
        """The label to predict at each position, [sequences, tokens]."""
        return batch.targets["labels"]

    def from_outputs(self, outputs: Any, batch: Batch, smoothing: float) -> torch.Tensor:
        """The summed cross entropy, [1]."""
        return summed_cross_entropy(outputs.logits.flatten(0, 1), self.labels(batch).flatten(), smoothing)[None]


class NextTokenLoss(TokenLoss):
    """Cross entropy of the next token. Labels are at their own token's position, as in transformers, and are shifted here."""

    def forward(self, model: Any, batch: Batch) -> Any:
        """The model's outputs, without a key-value cache."""
        return model(**batch.inputs, use_cache=False)

    def labels(self, batch: Batch) -> torch.Tensor:
        """At each position the label of the next one, [sequences, tokens]."""
        return next_token_labels(batch.targets["labels"])


def next_token_labels(labels: torch.Tensor) -> torch.Tensor:
    """At each position the next one's label, [sequences, tokens]; shifting logits would copy the largest tensor there is."""
    return functional.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)


def count_labels(labels: torch.Tensor) -> int:
    """The number of labels that are not -100."""
    return int((labels != IGNORE_INDEX).sum())
