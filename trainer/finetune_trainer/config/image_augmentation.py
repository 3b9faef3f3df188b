"""How images are altered while a model learns from them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.base import Rule, Section


class RandomCropConfig(Section):
    """A part of the image, enlarged to the whole again (Szegedy et al. 2015, arXiv:1409.4842)."""

    minimum_area: float = Field(0.08, gt=0, le=1, description="Smallest share of the image's area.")
    maximum_area: float = Field(1.0, gt=0, le=1, description="Largest share of the image's area.")
    stretch: float = Field(
        4 / 3, ge=1, le=4, description="By how much the part may be wider than it is high, or higher than it is wide."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.minimumArea <= self.maximumArea",
            "minimumArea is more than maximumArea: exchange them",
            "minimumArea",
        ),
    )


class ColorJitterConfig(Section):
    """Random colours: each is the most by which a property changes, 0.4 for up to 40 % more or less."""

    brightness: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, le=1)
    saturation: float = Field(0.0, ge=0, le=1)
    hue: float = Field(0.0, ge=0, le=0.5, description="In turns around the circle of colours.")
    probability: float = Field(1.0, gt=0, le=1, description="Share of the images whose colours change.")


class RandAugmentConfig(Section):
    """Several random operations of one strength (Cubuk et al. 2019, arXiv:1909.13719)."""

    operations: int = Field(2, ge=1, le=10, description="Operations on each image, one after the other.")
    magnitude: int = Field(9, ge=0, le=30, description="Strength of each, out of 30.")


class ImageAugmentationConfig(Section):
    """What is done to an image at random; without any of it it stays as it is."""

    random_crop: RandomCropConfig | None = None
    horizontal_flip: float = Field(0.0, ge=0, le=1, description="Share of the images that are mirrored.")
    color_jitter: ColorJitterConfig | None = None
    grayscale: float = Field(0.0, ge=0, le=1, description="Share of the images that lose their colours.")
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
            "the random operations are chosen twice: keep either randAugment or trivialAugment",
            "trivialAugment",
        ),
    )
