"""Options of PromptTuning."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.methods.base import MethodConfig


class PromptTuningConfig(MethodConfig):
    """Trained embeddings of virtual tokens before each text, on a frozen model (Lester et al. 2021, arXiv:2104.08691)."""

    supports_merging: ClassVar[bool] = False
    supports_packing: ClassVar[bool] = False

    virtual_tokens: int = Field(
        20, ge=1, le=4096, description="Number of virtual tokens; their positions are in addition to data.maxLength."
    )
    initial_text: str | None = Field(
        None,
        min_length=1,
        max_length=16384,
        description="Text whose token embeddings initialize the virtual tokens, repeated or truncated to their number; random "
        "tokens of the vocabulary if absent.",
    )

    @property
    def prefix_length(self) -> int:
        """The number of virtual tokens."""
        return self.virtual_tokens
