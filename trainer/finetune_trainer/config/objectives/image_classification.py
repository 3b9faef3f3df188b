"""Options for ImageClassification."""

from __future__ import annotations

from typing import ClassVar

from finetune_trainer.config.objectives.classification import ClassificationOptions
from finetune_trainer.config.objectives.images import ImageOptions


class ImageClassification(ClassificationOptions, ImageOptions):
    """Label an image: one of several labels, any of several labels, or a number."""

    columns: ClassVar[tuple[str, ...]] = ("image", "label")
