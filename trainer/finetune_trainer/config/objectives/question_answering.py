"""The config of QuestionAnswering."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.objectives.base import ObjectiveConfig, ReportedMetrics, always


class QuestionAnsweringConfig(ObjectiveConfig):
    """Find the words of a text that answer a question about it (Rajpurkar et al. 2016, arXiv:1606.05250)."""

    # The context is the subject, so that no context is in both training and evaluation data.
    columns: ClassVar[tuple[str, ...]] = ("context", "question", "answers")
    splittable: ClassVar[bool] = True  # into windows, which remain one example
    shares_encoder: ClassVar[bool] = True
    reported_metrics: ClassVar[tuple[ReportedMetrics, ...]] = always(
        "loss", "exactMatch", "f1", "exactMatch[answerable]", "exactMatch[unanswerable]", "f1[answerable]", "f1[unanswerable]"
    )

    stride: int = Field(
        128,
        ge=0,
        le=1_048_576,
        description="Tokens that two adjacent windows of a split context share, at most a third of maxLength. All windows of a "
        "context are computed together.",
    )
    max_answer_length: int = Field(30, ge=1, le=4096, description="Tokens of the longest answer that can be predicted.")
