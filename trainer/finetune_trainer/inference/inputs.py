"""Reads the inputs of `predict` from its arguments, from files and from standard input."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from finetune_trainer.protocol.outcome import ConfigurationError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def read_inputs(arguments: Iterable[str]) -> Iterator[Any]:
    """The inputs of all arguments: texts, paths of images and JSON values.

    Raises ConfigurationError for an image that does not exist.
    """
    for argument in arguments:
        path = Path(argument)
        if argument == "-":
            yield from _read_lines(sys.stdin)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            yield _existing_image(path)
        elif _is_file(path):
            with path.open(encoding="utf-8") as file:
                yield from _read_lines(file)
        else:
            yield from _read_lines([argument])


def _is_file(path: Path) -> bool:
    with suppress(OSError, ValueError):  # a text can be too long for a file name or contain characters that none may
        return path.is_file()
    return False


def _read_lines(lines: Iterable[str]) -> Iterator[Any]:
    for line in lines:
        text = line.rstrip("\r\n")
        if text.strip():
            yield _parse_line(text)


def _parse_line(text: str) -> Any:
    if text.lstrip()[0] in "{[":
        with suppress(ValueError):
            return _pipeline_input(json.loads(text))
    if Path(text).suffix.lower() in IMAGE_SUFFIXES:
        return _existing_image(Path(text))
    return text


def _existing_image(path: Path) -> str:
    if not path.is_file():
        raise ConfigurationError(f"--input: {path} does not exist: correct the path or put it there")
    return str(path)


def _pipeline_input(row: Any) -> Any:
    """The part of a row that a pipeline takes: a chat's messages, an image, a text or a pair of texts, or the whole row."""
    if not isinstance(row, dict):
        return row
    for key in ("messages", "image"):
        if key in row:
            return row[key]
    if "text" not in row:
        return row
    if row.get("text_pair") is None:
        return row["text"]
    return {"text": row["text"], "text_pair": row["text_pair"]}
