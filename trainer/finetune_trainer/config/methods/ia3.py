"""Options of IA3."""

from __future__ import annotations

from pydantic import Field

from finetune_trainer.config.methods.base import MethodConfig


class IA3Config(MethodConfig):
    """Learned scales of keys, values and feed-forward activations (Liu et al. 2022, arXiv:2205.05638)."""

    target_modules: list[str] = Field(
        default_factory=list,
        max_length=256,
        description="Names of the layers whose outputs are scaled. If this and feedforwardModules are empty, peft's "
        "defaults for the model family are used.",
    )
    feedforward_modules: list[str] = Field(
        default_factory=list, max_length=256, description="Names of the layers whose inputs are scaled."
    )
