"""The config of SequenceClassification."""

from __future__ import annotations

from typing import ClassVar

from finetune_trainer.config.objectives.classification import ClassificationObjectiveConfig


class SequenceClassificationConfig(ClassificationObjectiveConfig):
    """Label a text or a pair of texts: one of several labels, any of several labels, or a number."""

    columns: ClassVar[tuple[str, ...]] = ("text", "label")
    optional_columns: ClassVar[tuple[str, ...]] = ("text_pair",)
    shares_encoder: ClassVar[bool] = True
