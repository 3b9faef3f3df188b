"""Metrics of contrastive objectives: the rank of each row's right candidate among those of as many rows as a step has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from finetune_trainer.objectives.base import BatchStatistics, Metrics, Statistics
from finetune_trainer.objectives.losses.contrastive import ComparedBatch


class RetrievalMetrics(Metrics[ComparedBatch]):
    """Recall at 1 and at 5, and the mean reciprocal rank."""

    def measure(self, model: Any, batch: ComparedBatch) -> BatchStatistics:
        """Statistics: rows whose right candidate ranks first, within the first 5, sum of reciprocal ranks, and all rows.

        The model is not needed: the rows were compared when the step was prepared.
        """
        ranks = batch.ranks.double()
        sums = torch.stack([ranks == 1, ranks <= 5, ranks.reciprocal(), torch.ones_like(ranks)]).sum(1)
        return BatchStatistics(batch.losses.sum()[None], sums)

    def compute(self, losses: Sequence[float], statistics: Statistics) -> dict[str, float]:
        """`loss`, `recall@1`, `recall@5` and `mrr`."""
        return {"loss": losses[0]} | retrieval_metrics(statistics)


def retrieval_metrics(statistics: Statistics) -> dict[str, float]:
    """Recall at 1 and at 5, and the mean reciprocal rank, from the sums of `RetrievalMetrics.measure`."""
    first, among_five, reciprocal_ranks, rows = statistics.tolist()
    rows = max(rows, 1)
    return {"recall@1": first / rows, "recall@5": among_five / rows, "mrr": reciprocal_ranks / rows}
