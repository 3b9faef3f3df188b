"""Options of Full, which has none."""

from __future__ import annotations

from typing import ClassVar

from finetune_trainer.config.methods.base import MethodConfig


class FullConfig(MethodConfig):
    """All weights are trained."""

    trains_adapter: ClassVar[bool] = False
