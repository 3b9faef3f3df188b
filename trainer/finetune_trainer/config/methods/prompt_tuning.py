"""Options for PromptTuning."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.methods.base import MethodConfig


class PromptTuningConfig(MethodConfig):
    """Embeddings of virtual tokens before each text, of a model that stays as it is (Lester et al. 2021, arXiv:2104.08691)."""

    mergeable: ClassVar[bool] = False
    packable: ClassVar[bool] = False

    virtual_tokens: int = Field(20, ge=1, le=4096, description="Their number; they take positions beside data.maxLength.")
    initial_text: str | None = Field(
        None,
        min_length=1,
        max_length=16384,
        description="A text whose tokens' embeddings they begin as, repeated or cut as needed; random tokens' when absent.",
    )

    @property
    def prefix(self) -> int:
        """Positions before each text."""
        return self.virtual_tokens
