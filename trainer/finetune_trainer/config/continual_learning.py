"""What keeps a model from forgetting what it knew: penalties on leaving its start, and learning earlier rows again."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.base import Rule, Section


class EWCConfig(Section):
    """Elastic weight consolidation: weights that mattered for earlier data are held back (Kirkpatrick et al. 2017,
    arXiv:1612.00796)."""

    strength: float = Field(gt=0, le=1e12, description="Lambda: what the penalty of all weights is multiplied with.")
    rows: int = Field(
        256, ge=1, le=1_000_000, description="How many of the earlier rows, drawn by the seed, tell which weights mattered."
    )


class ReplayConfig(Section):
    """Experience replay: earlier rows are learnt again beside the new ones (Robins 1995; Rolnick et al. 2019,
    arXiv:1811.11682)."""

    share: float = Field(
        gt=0,
        lt=1,
        description="Share of the sequences that are learnt from which comes from data.replay. An epoch keeps the length that "
        "data.train gives it; the weights of data.train, or an equal chance of each of its sequences, divide the rest.",
    )


class ContinualLearningConfig(Section):
    """Penalties on leaving the starting weights, and rehearsal of what was learnt before; all may be given at once."""

    l2sp: float | None = Field(
        None,
        alias="l2sp",
        gt=0,
        le=1e6,
        description="Strength of the pull of every weight back to its start, L2-SP (Li et al. 2018, arXiv:1802.01483).",
    )
    ewc: EWCConfig | None = None
    replay: ReplayConfig | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.l2sp) || has(self.ewc) || has(self.replay)",
            "nothing is asked for: set l2sp, ewc or replay",
        ),
    )

    @property
    def penalizes(self) -> bool:
        """Whether leaving the start costs anything."""
        return self.l2sp is not None or self.ewc is not None
