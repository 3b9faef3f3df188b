"""The config of MaskedLM."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.base import Rule
from finetune_trainer.config.objectives.base import ObjectiveConfig, ReportedMetrics, always


class MaskedLMConfig(ObjectiveConfig):
    """Predict hidden tokens from both sides of them (Devlin et al. 2019, arXiv:1810.04805)."""

    splittable: ClassVar[bool] = True
    packable: ClassVar[bool] = True
    supports_label_smoothing: ClassVar[bool] = True
    shares_encoder: ClassVar[bool] = True
    reported_metrics: ClassVar[tuple[ReportedMetrics, ...]] = always("loss", "accuracy")

    probability: float = Field(0.15, gt=0, lt=1, description="Share of the tokens that are predicted.")
    mask_share: float = Field(0.8, ge=0, le=1, description="Share of those replaced by the mask token.")
    random_share: float = Field(0.1, ge=0, le=1, description="Share of those replaced by a random token. The rest stays.")
    whole_word: bool = Field(False, description="Hide whole words instead of single tokens.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.maskShare + self.randomShare <= 1.0",
            "maskShare and randomShare are shares of the same tokens: lower one, so that together they are at most 1",
            "randomShare",
        ),
    )
