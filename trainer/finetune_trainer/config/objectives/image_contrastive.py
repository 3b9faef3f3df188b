"""Options for ImageContrastive."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.base import Rule
from finetune_trainer.config.image_augmentation import ColorJitterConfig, ImageAugmentationConfig, RandomCropConfig
from finetune_trainer.config.objectives.images import ImageObjectiveConfig

# Of the paper, for ImageNet.
SIMCLR = ImageAugmentationConfig(
    random_crop=RandomCropConfig(),
    horizontal_flip=0.5,
    color_jitter=ColorJitterConfig(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, probability=0.8),
    grayscale=0.2,
    blur=0.5,
)


class ImageContrastiveConfig(ImageObjectiveConfig):
    """Tell an image, altered at random, from all others of the step; without labels (Chen et al. 2020, arXiv:2002.05709).

    How many others there are is decided by training.batchSize alone. An evaluation goes in groups of as many images, and
    recall@1, recall@5 and mrr say how soon a view finds the other one of its image among all views of its group.
    """

    compares: ClassVar[bool] = True

    temperature: float = Field(0.1, gt=0, le=100, description="What the cosine of two embeddings is divided by.")
    augmentation: ImageAugmentationConfig = Field(
        SIMCLR,
        description="How each view is altered at random, in the evaluation too; by default as in SimCLR: cropped, half of them "
        "mirrored and half blurred, colours changed by up to 80 %, a fifth without any. What is given replaces all of this.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.augmentation.randomCrop) || has(self.augmentation.colorJitter) || has(self.augmentation.randAugment) || "
            "self.augmentation.trivialAugment || self.augmentation.horizontalFlip > 0.0 || "
            "self.augmentation.grayscale > 0.0 || self.augmentation.blur > 0.0",
            "both views of an image would be the same: say how they are altered, or remove augmentation",
            "augmentation",
        ),
    )
