"""Weights of a fully trained model that stay frozen, for the whole run or at its beginning."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.base import Rule, Section


class FreezeConfig(Section):
    """Weights that are not trained; a tied weight, such as an embedding that is also the head, is frozen in both places."""

    modules: list[str] = Field(
        default_factory=list,
        max_length=256,
        description="Names of modules to freeze, full or only the last parts; * matches any characters.",
    )
    embeddings: bool = Field(False, description="Whether to freeze everything before the first layer.")
    layers: int | None = Field(None, ge=1, le=10_000, description="Number of layers to freeze, counted from the lowest.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "size(self.modules) > 0 || self.embeddings || has(self.layers)",
            "nothing is frozen: set modules, embeddings or layers, or remove freeze",
        ),
    )


class UnfreezeConfig(Section):
    """Gradual unfreezing from the top down (ULMFiT, Howard & Ruder 2018, arXiv:1801.06146): only the head at first."""

    every_steps: int = Field(ge=1, description="Steps until the next lower layer is trained too; the embeddings come last.")
