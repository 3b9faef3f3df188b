"""Gradual unfreezing starts at the head and reaches the embeddings."""

from __future__ import annotations

from finetune_trainer.config import UnfreezeConfig
from finetune_trainer.methods.unfreezing import lowest_depth


def test_layers_unfreeze_from_the_top_down() -> None:
    depths = [lowest_depth(UnfreezeConfig(every_steps=2), step, head=3) for step in range(1, 11)]
    assert depths == [3, 3, 2, 2, 1, 1, 0, 0, 0, 0]
