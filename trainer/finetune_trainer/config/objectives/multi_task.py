"""Options for MultiTask; its tasks stand beside them, as `objective.tasks`."""

from __future__ import annotations

from typing import ClassVar

from finetune_trainer.config.objectives.base import ObjectiveConfig


class MultiTaskConfig(ObjectiveConfig):
    """Several tasks at once, which share an encoder and have a head each (Liu et al. 2019, arXiv:1901.11504)."""

    columns: ClassVar[tuple[str, ...]] = ()
