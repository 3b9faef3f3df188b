"""Weights of a fully trained model that stay as they are, for the whole run or for its beginning."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.base import Rule, Section


class FreezeConfig(Section):
    """Weights that never move; one that is used twice, such as an embedding that is the head too, is frozen in both."""

    modules: list[str] = Field(
        default_factory=list,
        max_length=256,
        description="Names of modules, whole or their last parts; * stands for anything.",
    )
    embeddings: bool = Field(False, description="All that comes before the first layer.")
    layers: int | None = Field(None, ge=1, le=10_000, description="So many of the lowest layers.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "size(self.modules) > 0 || self.embeddings || has(self.layers)",
            "nothing is frozen: set modules, embeddings or layers, or remove freeze",
        ),
    )


class UnfreezeConfig(Section):
    """Gradual unfreezing from the top down (ULMFiT, Howard & Ruder 2018, arXiv:1801.06146): first the head alone moves."""

    every_steps: int = Field(ge=1, description="Steps until the next lower layer moves too; the embeddings are the last.")
