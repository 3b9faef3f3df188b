"""Images altered at random, so that a model sees each of them in many ways; every draw comes from the row's own numbers.

torchvision's transforms draw from torch's one generator, which the thread that makes batches would share with the model's
dropout; so they are put together here, from torchvision's functions. They work on Pillow's images: most are quicker on these
than on tensors, and an image keeps one core busy and not all.
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
LEVELS = 30  # strengths of an operation beside none
TRIES = 10  # to find a part that lies within the image
SIGMAS = (0.1, 2.0)  # of a blur, in pixels


class Strengths(NamedTuple):
    """How far the operations go at their strongest."""

    shear: float
    translate: Callable[[int], float]
    """In pixels, of a side's length."""
    rotate: float
    """In degrees."""
    color: float
    bits: int
    """Lost of the eight of each colour."""


RAND = Strengths(0.3, lambda side: 150 / 331 * side, 30.0, 0.9, 4)
TRIVIAL = Strengths(0.99, lambda side: 32.0, 135.0, 0.99, 6)

Operation = Callable[[Image.Image, float, Strengths], Image.Image]
"""With a strength between -1 and 1."""


def augment_image(picture: Image.Image, wanted: ImageAugmentationConfig, random: Random) -> Image.Image:
    """The image altered as `wanted` says, of the same size and mode."""
    if wanted.random_crop:
        picture = _cropped(picture, wanted.random_crop, random)
    if random.random() < wanted.horizontal_flip:
        picture = functional.horizontal_flip(picture)
    if wanted.rand_augment:
        for _ in range(wanted.rand_augment.operations):
            picture = _operated(picture, wanted.rand_augment.magnitude, RAND, random)
    if wanted.trivial_augment:
        picture = _operated(picture, int(random.integers(LEVELS + 1)), TRIVIAL, random)
    if wanted.color_jitter and random.random() < wanted.color_jitter.probability:
        picture = _jittered(picture, wanted.color_jitter, random)
    if random.random() < wanted.grayscale:
        picture = functional.rgb_to_grayscale(picture, len(picture.getbands()))
    if random.random() < wanted.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(*SIGMAS)))
    return picture


def _cropped(picture: Image.Image, wanted: RandomCropConfig, random: Random) -> Image.Image:
    """A part of random area and shape, enlarged; the whole where none of several draws lies within the image."""
    columns, rows = picture.size
    for _ in range(TRIES):
        area = rows * columns * random.uniform(wanted.minimum_area, wanted.maximum_area)
        shape = math.exp(random.uniform(-1, 1) * math.log(wanted.stretch))
        height, width = round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
        if 0 < height <= rows and 0 < width <= columns:
            top, left = (int(random.integers(0, room + 1)) for room in (rows - height, columns - width))
            part: Image.Image = functional.resized_crop(picture, top, left, height, width, [rows, columns])
            return part
    return picture


def _jittered(picture: Image.Image, wanted: ColorJitterConfig, random: Random) -> Image.Image:
    """In random order, as each sees what the one before it made."""
    changes = [
        (functional.adjust_brightness, 1.0, wanted.brightness), (functional.adjust_contrast, 1.0, wanted.contrast),
        (functional.adjust_saturation, 1.0, wanted.saturation), (functional.adjust_hue, 0.0, wanted.hue),
    ]  # fmt: skip
    for index in random.permutation(len(changes)):
        change, center, most = changes[index]
        if most:
            picture = change(picture, center + most * random.uniform(-1, 1))
    return picture


def _operated(picture: Image.Image, level: int, strengths: Strengths, random: Random) -> Image.Image:
    """By a random operation, in a random direction."""
    name = list(OPERATIONS)[random.integers(len(OPERATIONS))]
    return OPERATIONS[name](picture, level / LEVELS * (1 if random.random() < 0.5 else -1), strengths)


def _moved(
    picture: Image.Image, *, shear: tuple[float, float] = (0.0, 0.0), translate: tuple[float, float] = (0, 0), **more: Any
) -> Image.Image:
    """Sheared by parts of the image, or translated by pixels."""
    degrees = [math.degrees(math.atan(part)) for part in shear]
    moved: Image.Image = functional.affine(picture, 0.0, [int(part) for part in translate], 1.0, degrees, **more)
    return moved


def _colored(change: Callable[[Image.Image, float], Image.Image]) -> Operation:
    return lambda picture, strength, strengths: change(picture, 1 + strengths.color * strength)


OPERATIONS: dict[str, Operation] = {
    "Identity": lambda picture, strength, strengths: picture,
    "ShearX": lambda picture, strength, strengths: _moved(picture, shear=(strengths.shear * strength, 0.0), center=[0, 0]),
    "ShearY": lambda picture, strength, strengths: _moved(picture, shear=(0.0, strengths.shear * strength), center=[0, 0]),
    "TranslateX": lambda picture, strength, strengths: _moved(
        picture, translate=(strengths.translate(picture.width) * strength, 0)
    ),
    "TranslateY": lambda picture, strength, strengths: _moved(
        picture, translate=(0, strengths.translate(picture.height) * strength)
    ),
    "Rotate": lambda picture, strength, strengths: functional.rotate(picture, strengths.rotate * strength),
    "Brightness": _colored(functional.adjust_brightness),
    "Color": _colored(functional.adjust_saturation),
    "Contrast": _colored(functional.adjust_contrast),
    "Sharpness": _colored(functional.adjust_sharpness),
    "Posterize": lambda picture, strength, strengths: functional.posterize(picture, 8 - round(abs(strength) * strengths.bits)),
    "Solarize": lambda picture, strength, strengths: functional.solarize(picture, 255 * (1 - abs(strength))),
    "AutoContrast": lambda picture, strength, strengths: functional.autocontrast(picture),
    "Equalize": lambda picture, strength, strengths: functional.equalize(picture),
}
"""Those that RandAugment and TrivialAugment choose from, by the papers' names."""
