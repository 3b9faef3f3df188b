"""The config of MultiTask. Its tasks are in `objective.tasks`."""

from __future__ import annotations

from typing import ClassVar

from finetune_trainer.config.objectives.base import ObjectiveConfig


class MultiTaskConfig(ObjectiveConfig):
    """Train several tasks together, with one encoder and a head for each (Liu et al. 2019, arXiv:1901.11504)."""

    columns: ClassVar[tuple[str, ...]] = ()
