"""The schedule of gradual unfreezing."""

from __future__ import annotations

from finetune_trainer.config import UnfreezeConfig
from finetune_trainer.methods.components.unfreezing import lowest_trained_depth


def test_unfreezes_layers_from_the_top_down() -> None:
    depths = [lowest_trained_depth(UnfreezeConfig(every_steps=2), step, head_depth=3) for step in range(1, 11)]
    assert depths == [3, 3, 2, 2, 1, 1, 0, 0, 0, 0]
