"""Decodes the image of a row with Pillow, from a file, base64 or bytes. Imports no torch."""

from __future__ import annotations

import base64
import binascii
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from finetune_trainer.data.records.pixels import convert_pixels, range_problem
from finetune_trainer.data.records.row import Row
from finetune_trainer.protocol.outcome import DataError, first_line

MAX_PATH_CHARACTERS = 1024  # a longer text is base64
MAX_SHOWN_CHARACTERS = 40


def decode_image(row: Row, mode: str) -> Image.Image:
    """The whole image, upright, in Pillow's `mode`, of an animation the first frame; see `convert_pixels`.

    Raises DataError if it cannot be read or is damaged, and if it is unknown which of its values is white.
    """
    with _open(row) as image:
        upright = ImageOps.exif_transpose(image)
        return convert_pixels(upright, mode)


def validate_image(row: Row) -> None:
    """Raises DataError if there is no image; reads only its header."""
    with _open(row):
        pass


@contextmanager
def _open(row: Row) -> Iterator[Image.Image]:
    content = _locate(row)
    try:
        with Image.open(content) as image:
            if problem := range_problem(image):
                raise row.error_for("image", problem)
            yield image
    except (MemoryError, DataError):
        raise
    except Exception as error:  # Pillow's decoders raise errors of many kinds, even a bare SyntaxError
        subject = f"names {content.name}, which is" if isinstance(content, Path) else "is"
        raise row.error_for(
            "image", f"{subject} not an image that can be read ({_reason(error)}): replace it or remove the row"
        ) from error


def _locate(row: Row) -> Path | io.BytesIO:
    """The file or the bytes that hold the image."""
    value: Any = row.values["image"]
    content: str | bytes = (value.get("bytes") or value["path"]) if isinstance(value, dict) else value
    if isinstance(content, bytes):
        return io.BytesIO(content)
    if content.startswith("data:"):
        return io.BytesIO(_decode_base64(row, content.partition(",")[2]))
    if len(content) > MAX_PATH_CHARACTERS:
        return io.BytesIO(_decode_base64(row, content))
    path = (row.folder or Path()) / content
    if os.path.isfile(path):  # noqa: PTH113  # Path.is_file raises if a part of the text is longer than a file name may be
        return path
    if Path(content).suffix:
        raise row.error_for(
            "image", f"names {content}, and there is no such file in {path.parent}: correct the path, or put the image there"
        )
    return io.BytesIO(_decode_base64(row, content))


def _decode_base64(row: Row, text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        shown = text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"
        raise row.error_for("image", f"is {shown!r}, neither a file nor base64 ({error}): correct the row") from error


def _reason(error: Exception) -> str:
    text = first_line(error)
    if text.startswith("cannot identify image"):
        return "of no known kind"
    return text or type(error).__name__
