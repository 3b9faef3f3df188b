"""The config of ImageClassification."""

from __future__ import annotations

from typing import ClassVar

from finetune_trainer.config.objectives.classification import ClassificationObjectiveConfig
from finetune_trainer.config.objectives.images import ImageObjectiveConfig


class ImageClassificationConfig(ClassificationObjectiveConfig, ImageObjectiveConfig):
    """Label an image: one of several labels, any of several labels, or a number."""

    columns: ClassVar[tuple[str, ...]] = ("image", "label")
