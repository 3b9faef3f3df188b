"""What holds for every objective that compares rows, whatever they are."""

from __future__ import annotations

from typing import Any

import torch

from finetune_trainer.data.collate import Layout
from finetune_trainer.world import World


def without_rows(contrastive: Any, learner: Any, world: World) -> None:
    """A rank without rows computes as often as the others, learns nothing, and measures nothing."""
    batches = [contrastive.collate([], [], Layout()) for _ in range(2)]
    assert [contrastive.count(batch) for batch in batches] == [[0], [0]]
    contrastive.look_ahead(learner, batches, world)
    for batch in batches:
        total = contrastive.loss_sums(learner, batch)
        total.sum().backward()
        assert total.tolist() == [0]
    with torch.no_grad():
        contrastive.look_ahead(learner, batches, world)
        assert contrastive.measure(learner, batches[0]).statistics.tolist() == [0, 0, 0, 0]
