"""Continual learning: penalties that keep a model near its starting weights, and replay of earlier data."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.base import Rule, Section


class EWCConfig(Section):
    """Elastic weight consolidation: weights that were important for earlier data are kept near their start (Kirkpatrick et al.
    2017, arXiv:1612.00796)."""

    strength: float = Field(gt=0, le=1e12, description="Lambda: the factor of the penalty over all weights.")
    rows: int = Field(
        256, ge=1, le=1_000_000,
        description="Number of rows of data.replay, sampled with the seed, on which the importance of weights is estimated.",
    )  # fmt: skip


class ReplayConfig(Section):
    """Experience replay: training data is mixed with earlier rows (Robins 1995; Rolnick et al. 2019, arXiv:1811.11682)."""

    share: float = Field(
        gt=0,
        lt=1,
        description="Share of the training sequences that comes from data.replay. An epoch keeps the length that data.train "
        "gives it; the rest is divided by the weights of data.train, or by equal chances of its sequences.",
    )


class ContinualLearningConfig(Section):
    """Penalties for leaving the starting weights, and replay of earlier data; they can be combined."""

    l2sp: float | None = Field(
        None,
        alias="l2sp",
        gt=0,
        le=1e6,
        description="Strength of L2-SP, the penalty that pulls each weight back to its start (Li et al. 2018, "
        "arXiv:1802.01483).",
    )
    ewc: EWCConfig | None = None
    replay: ReplayConfig | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.l2sp) || has(self.ewc) || has(self.replay)",
            "no method is chosen: set l2sp, ewc or replay",
        ),
    )

    @property
    def penalizes(self) -> bool:
        """Whether there is a penalty for leaving the starting weights."""
        return self.l2sp is not None or self.ewc is not None
