"""Metrics of losses over tokens: perplexity and token accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch
from finetune_trainer.objectives.base import BatchStatistics, Metrics, Statistics
from finetune_trainer.objectives.losses.from_outputs import OutputLoss, TokenLoss


class Perplexity(Metrics[Batch]):
    """Loss and perplexity."""

    def __init__(self, loss: OutputLoss) -> None:
        self.loss = loss

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """No statistics: the perplexity follows from the loss, which therefore has no label smoothing."""
        losses = self.loss.from_outputs(self.loss.forward(model, batch), batch, 0.0)
        return BatchStatistics(losses, torch.zeros(0, dtype=torch.float64))

    def compute(self, losses: Sequence[float], statistics: Statistics) -> dict[str, float]:
        """`loss` and `perplexity`."""
        [loss] = losses
        return {"loss": loss} | perplexity(loss)


class TokenAccuracy(Metrics[Batch]):
    """Loss, perplexity if `with_perplexity`, and the share of labels that have the highest score, as metric `name`."""

    def __init__(self, loss: TokenLoss, name: str, *, with_perplexity: bool) -> None:
        self.loss = loss
        self.name = name
        self.with_perplexity = with_perplexity

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: correct labels, and all labels."""
        outputs = self.loss.forward(model, batch)
        losses = self.loss.from_outputs(outputs, batch, 0.0)
        return BatchStatistics(losses, count_correct(outputs.logits, self.loss.labels(batch)))

    def compute(self, losses: Sequence[float], statistics: Statistics) -> dict[str, float]:
        """`loss`, `perplexity` and the accuracy."""
        correct, labels = statistics.tolist()
        metrics = {"loss": losses[0]}
        if self.with_perplexity:
            metrics |= perplexity(losses[0])
        return metrics | {self.name: correct / max(labels, 1)}


def perplexity(loss: float) -> dict[str, float]:
    """The perplexity of a mean loss, unless it exceeds the largest float."""
    return {"perplexity": math.exp(loss)} if loss < 700 else {}


def count_correct(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """How many labels have the highest score, and how many labels there are [2]; scores [..., classes], labels [...]."""
    return torch.stack([(scores.argmax(-1) == labels).sum(), (labels != IGNORE_INDEX).sum()]).double()
