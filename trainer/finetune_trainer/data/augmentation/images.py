"""Random image augmentation; every draw comes from the sample's own random numbers.

torchvision's transforms draw from torch's global generator, which the thread that builds batches would share with the model's
dropout. The transforms are therefore composed here from torchvision's functions. They run on Pillow images, on which most are
faster than on tensors, and which keep one core busy instead of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFilter
from torchvision.transforms.v2 import functional

from finetune_trainer.config import ImageAugmentationConfig
from finetune_trainer.config.image_augmentation import ColorJitterConfig, RandomCropConfig

Random = np.random.Generator
LEVELS = 30  # the strongest level of an operation; level 0 changes nothing
CROP_ATTEMPTS = 10
BLUR_SIGMAS = (0.1, 2.0)  # in pixels


class Strengths(NamedTuple):
    """The strength of each operation at the highest level."""

    shear: float
    translate: Callable[[int], float]
    """Pixels, from the length of the image's side."""
    rotate: float
    """Degrees."""
    color: float
    bits: int
    """Bits removed from the eight of each color channel."""


RAND_AUGMENT = Strengths(0.3, lambda side: 150 / 331 * side, 30.0, 0.9, 4)
TRIVIAL_AUGMENT = Strengths(0.99, lambda side: 32.0, 135.0, 0.99, 6)

Operation = Callable[[Image.Image, float, Strengths], Image.Image]
"""Takes a strength between -1 and 1."""


def augment_image(image: Image.Image, options: ImageAugmentationConfig, random: Random) -> Image.Image:
    """The augmented image, with the size and mode of the original."""
    if options.random_crop:
        image = _random_crop(image, options.random_crop, random)
    if random.random() < options.horizontal_flip:
        image = functional.horizontal_flip(image)
    if options.rand_augment:
        for _ in range(options.rand_augment.operations):
            image = _random_operation(image, options.rand_augment.magnitude, RAND_AUGMENT, random)
    if options.trivial_augment:
        image = _random_operation(image, int(random.integers(LEVELS + 1)), TRIVIAL_AUGMENT, random)
    if options.color_jitter and random.random() < options.color_jitter.probability:
        image = _jitter_colors(image, options.color_jitter, random)
    if random.random() < options.grayscale:
        image = functional.rgb_to_grayscale(image, len(image.getbands()))
    if random.random() < options.blur:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(*BLUR_SIGMAS)))
    return image


def _random_crop(image: Image.Image, options: RandomCropConfig, random: Random) -> Image.Image:
    """A region of random area and aspect ratio, resized to the image; the whole image if no attempt fits into it."""
    columns, rows = image.size
    for _ in range(CROP_ATTEMPTS):
        area = rows * columns * random.uniform(options.minimum_area, options.maximum_area)
        aspect_ratio = math.exp(random.uniform(-1, 1) * math.log(options.stretch))
        height, width = round(math.sqrt(area / aspect_ratio)), round(math.sqrt(area * aspect_ratio))
        if 0 < height <= rows and 0 < width <= columns:
            top = int(random.integers(0, rows - height + 1))
            left = int(random.integers(0, columns - width + 1))
            crop: Image.Image = functional.resized_crop(image, top, left, height, width, [rows, columns])
            return crop
    return image


def _jitter_colors(image: Image.Image, options: ColorJitterConfig, random: Random) -> Image.Image:
    """Adjust the colors in random order, as each adjustment depends on the ones before it."""
    adjustments = [
        (functional.adjust_brightness, 1.0, options.brightness), (functional.adjust_contrast, 1.0, options.contrast),
        (functional.adjust_saturation, 1.0, options.saturation), (functional.adjust_hue, 0.0, options.hue),
    ]  # fmt: skip
    for index in random.permutation(len(adjustments)):
        adjust, neutral, limit = adjustments[index]
        if limit:
            image = adjust(image, neutral + limit * random.uniform(-1, 1))
    return image


def _random_operation(image: Image.Image, level: int, strengths: Strengths, random: Random) -> Image.Image:
    name = list(OPERATIONS)[random.integers(len(OPERATIONS))]
    direction = 1 if random.random() < 0.5 else -1
    return OPERATIONS[name](image, level / LEVELS * direction, strengths)


def _affine(
    image: Image.Image, *, shear: tuple[float, float] = (0.0, 0.0), translate: tuple[float, float] = (0, 0), **options: Any
) -> Image.Image:
    """Shear by tangents, and translate by pixels."""
    degrees = [math.degrees(math.atan(tangent)) for tangent in shear]
    result: Image.Image = functional.affine(image, 0.0, [int(pixels) for pixels in translate], 1.0, degrees, **options)
    return result


def _shear_x(image: Image.Image, strength: float, strengths: Strengths) -> Image.Image:
    return _affine(image, shear=(strengths.shear * strength, 0.0), center=[0, 0])


def _shear_y(image: Image.Image, strength: float, strengths: Strengths) -> Image.Image:
    return _affine(image, shear=(0.0, strengths.shear * strength), center=[0, 0])


def _translate_x(image: Image.Image, strength: float, strengths: Strengths) -> Image.Image:
    return _affine(image, translate=(strengths.translate(image.width) * strength, 0))


def _translate_y(image: Image.Image, strength: float, strengths: Strengths) -> Image.Image:
    return _affine(image, translate=(0, strengths.translate(image.height) * strength))


def _posterize(image: Image.Image, strength: float, strengths: Strengths) -> Image.Image:
    result: Image.Image = functional.posterize(image, 8 - round(abs(strength) * strengths.bits))
    return result


def _color_operation(adjust: Callable[[Image.Image, float], Image.Image]) -> Operation:
    return lambda image, strength, strengths: adjust(image, 1 + strengths.color * strength)


OPERATIONS: dict[str, Operation] = {
    "Identity": lambda image, strength, strengths: image,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": lambda image, strength, strengths: functional.rotate(image, strengths.rotate * strength),
    "Brightness": _color_operation(functional.adjust_brightness),
    "Color": _color_operation(functional.adjust_saturation),
    "Contrast": _color_operation(functional.adjust_contrast),
    "Sharpness": _color_operation(functional.adjust_sharpness),
    "Posterize": _posterize,
    "Solarize": lambda image, strength, strengths: functional.solarize(image, 255 * (1 - abs(strength))),
    "AutoContrast": lambda image, strength, strengths: functional.autocontrast(image),
    "Equalize": lambda image, strength, strengths: functional.equalize(image),
}
"""The operations of RandAugment and TrivialAugment, by their names in the papers."""
