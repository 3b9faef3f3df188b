"""What holds for every objective that compares rows, whatever they are."""

from __future__ import annotations

from typing import Any

import torch

from finetune_trainer.data.loading.collate import Layout
from finetune_trainer.distributed.process_group import ProcessGroup


def without_rows(contrastive: Any, learner: Any, world: ProcessGroup) -> None:
    """A rank without rows computes as often as the others, learns nothing, and measures nothing."""
    batches = [contrastive.collate([], [], Layout()) for _ in range(2)]
    assert [contrastive.count(batch) for batch in batches] == [[0], [0]]
    contrastive.prepare_step(learner, batches, world)
    for batch in batches:
        total = contrastive.loss_sum(learner, batch)
        total.sum().backward()
        assert total.tolist() == [0]
    with torch.no_grad():
        contrastive.prepare_step(learner, batches, world)
        assert contrastive.measure(learner, batches[0]).statistics.tolist() == [0, 0, 0, 0]
