"""Converts images of any kind to 8 bits a channel, without transparency."""

from __future__ import annotations

import numpy as np
from PIL import Image

_SIXTEEN_BITS = "I;16"  # also I;16B and other byte orders
_UNKNOWN_RANGES = {"I": "32-bit integers", "F": "floating-point numbers"}


def range_problem(image: Image.Image) -> str | None:
    """Why the brightness of an image cannot be known, with the remedy: its numbers have no defined range."""
    numbers = _UNKNOWN_RANGES.get(image.mode)
    return numbers and f"holds {numbers}, of which no value is known to be white: convert it to 8 or 16 bits a channel"


def convert_pixels(image: Image.Image, mode: str) -> Image.Image:
    """The first frame of an image in the `mode` L or RGB.

    16-bit gray values keep their upper 8 bits. Transparent pixels are put on white, as browsers do it. The image must have no
    `range_problem`.
    """
    if image.mode.startswith(_SIXTEEN_BITS):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        colors = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colors.size, "white"), colors)
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return image.convert(mode)
