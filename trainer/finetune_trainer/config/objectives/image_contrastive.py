"""The config of ImageContrastive."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.base import Rule
from finetune_trainer.config.image_augmentation import ColorJitterConfig, ImageAugmentationConfig, RandomCropConfig
from finetune_trainer.config.objectives.base import ReportedMetrics, always
from finetune_trainer.config.objectives.images import ImageObjectiveConfig

# The paper's augmentation for ImageNet.
SIMCLR = ImageAugmentationConfig(
    random_crop=RandomCropConfig(),
    horizontal_flip=0.5,
    color_jitter=ColorJitterConfig(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, probability=0.8),
    grayscale=0.2,
    blur=0.5,
)


class ImageContrastiveConfig(ImageObjectiveConfig):
    """Match two augmented views of an image among those of all images of the step (Chen et al. 2020, arXiv:2002.05709).

    It needs no labels. training.batchSize sets the number of images in a step. An evaluation compares groups of as many images;
    recall@1, recall@5 and mrr measure the rank of a view's counterpart among all views of its group.
    """

    compares_rows: ClassVar[bool] = True
    reported_metrics: ClassVar[tuple[ReportedMetrics, ...]] = always("loss", "recall@1", "recall@5", "mrr")

    temperature: float = Field(0.1, gt=0, le=100, description="Divisor of the cosine of two embeddings.")
    augmentation: ImageAugmentationConfig = Field(
        SIMCLR,
        description="Random augmentation of each view, in the evaluation too. By default as in SimCLR: random crops, half of "
        "them flipped and half blurred, colors changed by up to 80 %, a fifth in grayscale. A value replaces all of it.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.augmentation.randomCrop) || has(self.augmentation.colorJitter) || has(self.augmentation.randAugment) || "
            "self.augmentation.trivialAugment || self.augmentation.horizontalFlip > 0.0 || "
            "self.augmentation.grayscale > 0.0 || self.augmentation.blur > 0.0",
            "both views of an image would be the same: add an augmentation, or remove augmentation",
            "augmentation",
        ),
    )
