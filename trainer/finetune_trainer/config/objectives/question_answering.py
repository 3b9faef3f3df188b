"""Options for QuestionAnswering."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.objectives.base import ObjectiveConfig


class QuestionAnsweringConfig(ObjectiveConfig):
    """Find the words of a text that answer a question about it (Rajpurkar et al. 2016, arXiv:1606.05250)."""

    # The context decides who is held out, so that no context is on both sides.
    columns: ClassVar[tuple[str, ...]] = ("context", "question", "answers")
    divisible: ClassVar[bool] = True  # into windows, which stay one example
    shares_encoder: ClassVar[bool] = True

    stride: int = Field(
        128,
        ge=0,
        le=1_048_576,
        description="Tokens that two neighbouring windows of a split context share, at most a third of maxLength. Windows of a "
        "context are computed together.",
    )
    max_answer_length: int = Field(30, ge=1, le=4096, description="Tokens of the longest answer that is looked for.")
