"""Options for MaskedLM."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.base import Rule
from finetune_trainer.config.objectives.base import ObjectiveConfig


class MaskedLMConfig(ObjectiveConfig):
    """Predict tokens that were hidden from both sides of them (Devlin et al. 2019, arXiv:1810.04805)."""

    divisible: ClassVar[bool] = True
    packable: ClassVar[bool] = True
    smoothable: ClassVar[bool] = True
    shares_encoder: ClassVar[bool] = True

    probability: float = Field(0.15, gt=0, lt=1, description="Share of the tokens that are predicted.")
    mask_share: float = Field(0.8, ge=0, le=1, description="Share of those that the mask token replaces.")
    random_share: float = Field(0.1, ge=0, le=1, description="Share of those that a random token replaces; the rest stays.")
    whole_word: bool = Field(False, description="Hide words instead of tokens.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.maskShare + self.randomShare <= 1.0",
            "maskShare and randomShare are shares of the same tokens: lower one, so that together they are at most 1",
            "randomShare",
        ),
    )
