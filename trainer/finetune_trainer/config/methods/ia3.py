"""Options for IA3."""

from __future__ import annotations

from pydantic import Field

from finetune_trainer.config.methods.base import MethodConfig


class IA3Config(MethodConfig):
    """Learnt scales of keys, values and what is within feed-forward layers (Liu et al. 2022, arXiv:2205.05638)."""

    target_modules: list[str] = Field(
        default_factory=list,
        max_length=256,
        description="Names of the layers whose outputs are scaled; with feedforwardModules empty too, what peft knows of the "
        "family.",
    )
    feedforward_modules: list[str] = Field(
        default_factory=list, max_length=256, description="Names of the layers whose inputs are scaled."
    )
