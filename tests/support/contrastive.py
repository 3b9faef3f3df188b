"""Checks for every objective that compares rows."""

from __future__ import annotations

from typing import Any

import torch

from finetune_trainer.data.loading.collate import Layout
from finetune_trainer.distributed.process_group import ProcessGroup


def without_rows(contrastive: Any, learner: Any, world: ProcessGroup) -> None:
    """Check that a rank without rows makes the same forward passes, and has no loss, gradient or statistics."""
    batches = [contrastive.collator.collate([], [], Layout()) for _ in range(2)]
    assert [contrastive.collator.count_terms(batch) for batch in batches] == [[0], [0]]
    for prepared in contrastive.loss.prepare_step(learner, batches, world):
        total = contrastive.loss.loss_sum(learner, prepared)
        total.sum().backward()
        assert total.tolist() == [0]
    with torch.no_grad():
        first, _ = contrastive.loss.prepare_step(learner, batches, world)
        assert contrastive.metrics.measure(learner, first).statistics.tolist() == [0, 0, 0, 0]
