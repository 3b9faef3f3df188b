"""Options for CausalLM; it has none."""

from __future__ import annotations

from typing import ClassVar

from finetune_trainer.config.objectives.base import ObjectiveConfig


class CausalLMConfig(ObjectiveConfig):
    """Predict each token from those before it (Radford et al. 2018)."""

    divisible: ClassVar[bool] = True
    packable: ClassVar[bool] = True
    smoothable: ClassVar[bool] = True
    promptable: ClassVar[bool] = True
    framed: ClassVar[bool] = False
    continues: ClassVar[bool] = True
