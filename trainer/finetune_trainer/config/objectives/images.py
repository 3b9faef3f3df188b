"""Config that objectives over images share."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.image_augmentation import ImageAugmentationConfig
from finetune_trainer.config.objectives.base import ObjectiveConfig, Processor


class ImageObjectiveConfig(ObjectiveConfig):
    """Base of the configs of objectives over images."""

    columns: ClassVar[tuple[str, ...]] = ("image",)
    processor: ClassVar[Processor] = "ImageProcessor"

    image_size: int | None = Field(
        None,
        ge=8,
        le=4096,
        description="Height and width in pixels to which images are resized, for a model from scratch. By default the "
        "image_size of its configuration, or 224.",
    )
    augmentation: ImageAugmentationConfig = Field(
        ImageAugmentationConfig(), description="Random augmentation of training images, never of those of the evaluation."
    )
