"""Pixel values of images of every kind, at 8 bits a channel."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune_trainer.data.records.images import decode_image, validate_image
from finetune_trainer.data.records.row import Row
from finetune_trainer.protocol.outcome import DataError

RED, GREEN, CLEAR = (255, 0, 0, 255), (0, 255, 0, 128), (0, 0, 0, 0)


def row(image: Image.Image, kind: str = "png", **options: Any) -> Row:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return Row({"image": content.getvalue()}, "a.parquet:3", {"image": "image"})


def pixels(image: Image.Image, kind: str = "png", mode: str = "RGB", **options: Any) -> list[Any]:
    """The decoded pixels of an image that is one pixel high."""
    found: list[Any] = np.asarray(decode_image(row(image, kind, **options), mode))[0].tolist()
    return found


def rgba(*colors: tuple[int, ...]) -> Image.Image:
    return Image.fromarray(np.array([colors], np.uint8))


@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_gray_of_16_bits_keeps_its_range(kind: str, dtype: str) -> None:
    gray = Image.fromarray(np.array([[0, 255, 256, 20_000, 32_768, 65_535]], dtype))
    assert gray.mode.startswith("I;16")
    levels = [0, 0, 1, 78, 128, 255]
    assert pixels(gray, kind, "L") == levels
    assert pixels(gray, kind) == [[level] * 3 for level in levels]


@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
def test_transparent_pixels_are_on_white(kind: str) -> None:
    options = {"lossless": True, "exact": True} if kind == "webp" else {}
    assert pixels(rgba(RED, GREEN, CLEAR), kind, **options) == [[255, 0, 0], [127, 255, 127], [255, 255, 255]]


def test_transparency_of_other_modes_is_on_white() -> None:
    gray = Image.fromarray(np.array([[[100, 255], [100, 0]]], np.uint8), "LA")
    assert pixels(gray, mode="L") == [100, 255]
    palette = Image.new("P", (3, 1))
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    palette.putdata([0, 1, 2])
    assert pixels(palette) == [[0, 0, 0], [255, 0, 0], [0, 0, 255]]
    for kind in ("png", "gif"):
        assert pixels(palette, kind, transparency=0) == [[255, 255, 255], [255, 0, 0], [0, 0, 255]]
    color_key = Image.fromarray(np.array([[[9, 9, 9], [8, 8, 8]]], np.uint8))
    assert pixels(color_key, transparency=(9, 9, 9)) == [[255, 255, 255], [8, 8, 8]]


def test_converts_print_colors_and_two_levels() -> None:
    ink = Image.fromarray(np.array([[[0, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255]]], np.uint8), "CMYK")
    assert pixels(ink, "tiff") == [[255, 255, 255], [255, 0, 0], [0, 0, 0]]
    assert pixels(ink, "tiff", "L") == [255, 76, 0]
    [white, *_] = pixels(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "jpeg")
    assert white == [255, 255, 255]
    assert pixels(Image.fromarray(np.array([[True, False]])), mode="L") == [255, 0]


def test_reads_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (2, 1), color) for color in ("red", "blue")]
    for kind in ("gif", "png", "tiff"):
        assert pixels(frames[0], kind, save_all=True, append_images=frames[1:]) == [[255, 0, 0]] * 2


def test_turns_images_of_16_bits_upright() -> None:
    gray = Image.fromarray(np.array([[256, 512]], np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right
    turned = decode_image(row(gray, exif=exif), "L")
    assert np.asarray(turned).tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("values", "numbers"), [(np.float32([[0, 1]]), "floating-point numbers"), (np.int32([[0, 70_000]]), "32-bit integers")]
)
def test_refuses_numbers_of_unknown_range(values: Any, numbers: str) -> None:
    image = row(Image.fromarray(values), "tiff")
    for read in (validate_image, lambda image: decode_image(image, "RGB")):
        with pytest.raises(
            DataError, match=rf"^a.parquet:3: column image holds {numbers}, of which no value is known to be white"
        ):
            read(image)
