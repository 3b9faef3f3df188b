"""The config of TokenClassification."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.objectives.base import ObjectiveConfig, ReportedMetrics, always


class TokenClassificationConfig(ObjectiveConfig):
    """Tag each word of a text: named entities, parts of speech."""

    columns: ClassVar[tuple[str, ...]] = ("tokens", "tags")
    shares_encoder: ClassVar[bool] = True
    supports_label_smoothing: ClassVar[bool] = True
    reported_metrics: ClassVar[tuple[ReportedMetrics, ...]] = always(
        "loss", "accuracy", "precision", "recall", "f1", "microPrecision", "microRecall", "microF1", "f1[TYPE]"
    )

    labels: list[str] = Field(
        default_factory=list,
        max_length=10_000,
        description="All tags in their order. By default those of the training data. Numbers in the data are indices from 0.",
    )
