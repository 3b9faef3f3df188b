"""The image of a record as Pillow has it, wherever the row keeps it. Imports no torch."""

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

from finetune_trainer.data.records.row import Row

LONGEST_PATH = 1024  # a text that is longer and no path must be base64


def decode_image(record: Row, mode: str) -> Image.Image:
    """The whole image, upright, in Pillow's `mode`; raises DataError for one that cannot be read or is damaged."""
    with _opened(record) as image:
        return ImageOps.exif_transpose(image).convert(mode)


def validate_image(record: Row) -> None:
    """Raises DataError unless there is an image; looks at its beginning only."""
    with _opened(record):
        pass


@contextmanager
def _opened(record: Row) -> Iterator[Image.Image]:
    content = _content(record)
    try:
        with Image.open(content) as image:
            yield image
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of many kinds, down to a bare SyntaxError
        what = f"names {content.name}, which is" if isinstance(content, Path) else "is"
        raise record.error_for(
            "image", f"{what} not an image that can be read ({_why(error)}): replace it or remove the row"
        ) from error


def _content(record: Row) -> Path | io.BytesIO:
    """The file or the bytes that an image is in."""
    value: Any = record.values["image"]
    content: str | bytes = (value.get("bytes") or value["path"]) if isinstance(value, dict) else value
    if isinstance(content, bytes):
        return io.BytesIO(content)
    if content.startswith("data:"):
        return io.BytesIO(_from_base64(record, content.partition(",")[2]))
    path = (record.folder or Path()) / content if len(content) <= LONGEST_PATH else None
    if path and os.path.isfile(path):  # noqa: PTH113  # Path.is_file raises where part of a text is longer than a name may be
        return path
    if path and Path(content).suffix:
        raise record.error_for(
            "image", f"names {content}, and there is no such file in {path.parent}: correct the path, or put the image there"
        )
    return io.BytesIO(_from_base64(record, content))


def _from_base64(record: Row, text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise record.error_for("image", f"is {shown!r}, neither a file nor base64 ({error}): correct the row") from error


def _why(error: Exception) -> str:
    text = str(error).strip().split("\n", 1)[0]
    return "of no known kind" if text.startswith("cannot identify image") else text or type(error).__name__
