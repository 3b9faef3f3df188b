"""Random augmentation of training images."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.base import Rule, Section


class RandomCropConfig(Section):
    """A random crop, resized to the size of the image (Szegedy et al. 2015, arXiv:1409.4842)."""

    minimum_area: float = Field(0.08, gt=0, le=1, description="Smallest share of the image's area.")
    maximum_area: float = Field(1.0, gt=0, le=1, description="Largest share of the image's area.")
    stretch: float = Field(4 / 3, ge=1, le=4, description="Largest ratio of the crop's longer side to its shorter side.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.minimumArea <= self.maximumArea",
            "minimumArea is larger than maximumArea: exchange them",
            "minimumArea",
        ),
    )


class ColorJitterConfig(Section):
    """Random changes of color. Each value is the largest relative change of a property: 0.4 is up to 40 % more or less."""

    brightness: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, le=1)
    saturation: float = Field(0.0, ge=0, le=1)
    hue: float = Field(0.0, ge=0, le=0.5, description="Largest change of hue, in turns of the color circle.")
    probability: float = Field(1.0, gt=0, le=1, description="Share of the images whose colors change.")


class RandAugmentConfig(Section):
    """Several random operations of equal strength (Cubuk et al. 2019, arXiv:1909.13719)."""

    operations: int = Field(2, ge=1, le=10, description="Operations for each image, in sequence.")
    magnitude: int = Field(9, ge=0, le=30, description="Strength of each operation, out of 30.")


class ImageAugmentationConfig(Section):
    """Random augmentations of training images; all are off by default."""

    random_crop: RandomCropConfig | None = None
    horizontal_flip: float = Field(0.0, ge=0, le=1, description="Share of the images that are mirrored.")
    color_jitter: ColorJitterConfig | None = None
    grayscale: float = Field(0.0, ge=0, le=1, description="Share of the images that become grayscale.")
    blur: float = Field(
        0.0, ge=0, le=1, description="Share of the images that are blurred (Chen et al. 2020, arXiv:2002.05709)."
    )
    rand_augment: RandAugmentConfig | None = None
    trivial_augment: bool = Field(
        False, description="One random operation of random strength (Müller & Hutter 2021, arXiv:2103.10158)."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!self.trivialAugment || !has(self.randAugment)",
            "randAugment and trivialAugment both choose random operations: keep one of them",
            "trivialAugment",
        ),
    )
