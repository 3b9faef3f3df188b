"""What keeps a model near where it starts, so that it does not forget what it knew."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.base import Rule, Section


class ElasticWeights(Section):
    """Elastic weight consolidation: weights that mattered for earlier data are held back (Kirkpatrick et al. 2017,
    arXiv:1612.00796)."""

    strength: float = Field(gt=0, le=1e12, description="Lambda: what the penalty of all weights is multiplied with.")
    rows: int = Field(
        256, ge=1, le=1_000_000, description="How many of the earlier rows, drawn by the seed, tell which weights mattered."
    )


class Forgetting(Section):
    """Penalties on leaving the starting weights; both may be given."""

    toward_start: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="Strength of the pull of every weight back to its start, L2-SP (Li et al. 2018, arXiv:1802.01483).",
    )
    elastic: ElasticWeights | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.towardStart) || has(self.elastic)", "nothing is asked for: set towardStart or elastic"),
    )
