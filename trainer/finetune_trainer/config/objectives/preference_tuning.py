"""Options for PreferenceTuning."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import Rule
from finetune_trainer.config.objectives.chat import ChatObjectiveConfig


class PreferenceTuningConfig(ChatObjectiveConfig):
    """Prefer one answer to another: direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290)."""

    columns: ClassVar[tuple[str, ...]] = ("prompt", "chosen", "rejected")

    loss: Literal["Sigmoid", "IPO", "Hinge"] = Field(
        "Sigmoid",
        description="Sigmoid is DPO's own; IPO keeps preferences bounded, by log-ratios averaged over tokens (Azar et al. 2023,"
        " arXiv:2310.12036); Hinge stops at a margin (SLiC, Zhao et al. 2023, arXiv:2305.10425).",
    )
    beta: float = Field(0.1, gt=0, le=100, description="How strongly the model is held to the one it starts as.")
    # An API server takes 0 for more than "less than 0.5", whose integer part is 0.
    label_smoothing: float = Field(
        0.0, ge=0, le=0.49, description="Share of the pairs that are taken to be the wrong way round (conservative DPO)."
    )
    reference_free: bool = Field(
        False,
        description="Compare with a uniform model instead of the one it starts as. With method Full the latter is a whole copy "
        "on every rank, whatever the ZeRO stage; adapters need none.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.loss == 'Sigmoid' || self.labelSmoothing == 0.0",
            "only the loss Sigmoid knows of wrong pairs: remove labelSmoothing, or set loss: Sigmoid",
            "labelSmoothing",
        ),
    )
