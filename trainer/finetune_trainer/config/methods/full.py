"""Options for Full; it has none."""

from __future__ import annotations

from typing import ClassVar

from finetune_trainer.config.methods.base import MethodConfig


class FullConfig(MethodConfig):
    """Every weight moves."""

    adapts: ClassVar[bool] = False
