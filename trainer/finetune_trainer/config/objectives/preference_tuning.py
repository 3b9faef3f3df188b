"""The config of PreferenceTuning."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import Rule
from finetune_trainer.config.objectives.base import ReportedMetrics, always
from finetune_trainer.config.objectives.chat import AnswerKind, ChatObjectiveConfig


class PreferenceTuningConfig(ChatObjectiveConfig):
    """Prefer one answer to another: direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290)."""

    columns: ClassVar[tuple[str, ...]] = ("prompt", "chosen", "rejected")
    reported_metrics: ClassVar[tuple[ReportedMetrics, ...]] = always(
        "loss", "accuracy", "margin", "chosenReward", "rejectedReward"
    )
    answers: ClassVar[AnswerKind] = "pair"

    loss: Literal["Sigmoid", "IPO", "Hinge"] = Field(
        "Sigmoid",
        description="Sigmoid is the loss of DPO; IPO bounds preferences, with log ratios averaged over tokens (Azar et al. "
        "2023, arXiv:2310.12036); Hinge stops at a margin (SLiC, Zhao et al. 2023, arXiv:2305.10425).",
    )
    beta: float = Field(0.1, gt=0, le=100, description="Strength of the penalty for leaving the reference model.")
    # An API server rejects 0 for a bound of "less than 0.5": it compares integers with the bound's integer part, 0.
    label_smoothing: float = Field(
        0.0, ge=0, le=0.49, description="Share of the pairs that are assumed to be in the wrong order (conservative DPO)."
    )
    reference_free: bool = Field(
        False,
        description="Use a uniform model as the reference instead of the starting model. With method Full the latter is a "
        "whole copy on every rank at every ZeRO stage; adapters need no copy.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.loss == 'Sigmoid' || self.labelSmoothing == 0.0",
            "only the loss Sigmoid knows of wrong pairs: remove labelSmoothing, or set loss: Sigmoid",
            "labelSmoothing",
        ),
    )
