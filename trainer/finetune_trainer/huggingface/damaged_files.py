"""Recognizes files of a model that are incomplete, or that hold something else than their name says."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LFS_PROBLEM = "is a Git LFS pointer and not the file itself: run git lfs pull in its repository, or download it again"
_HTML = (b"<!doctype html", b"<html")
_LENGTH_BYTES = 8  # of a safetensors file: the length of the header, little-endian
_MAX_HEADER_BYTES = 100_000_000  # as safetensors allows


def explain_damage(file: Path) -> str | None:
    """What is wrong with a file, and the remedy; None for a file that looks whole. Reads the beginning of large files."""
    with file.open("rb") as stream:
        beginning = stream.read(200)
    if beginning.startswith(LFS_POINTER):
        return LFS_PROBLEM
    if not beginning:
        return "is empty: copy it again"
    if beginning.lstrip().lower().startswith(_HTML):
        return "is an HTML page, such as a login or error page, and not the file itself: download it again"
    match file.suffix:
        case ".safetensors":
            return _explain_safetensors(file)
        case ".bin":
            return _explain_pickle(file, beginning)
        case ".json":
            return _explain_json(file)
    return None


def _explain_safetensors(file: Path) -> str | None:
    size = file.stat().st_size
    with file.open("rb") as stream:
        header_size = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if header_size > _MAX_HEADER_BYTES:
            return "is no safetensors file: copy it again"
        header = stream.read(header_size)
    if len(header) < header_size:
        return f"is incomplete, with {size:,} bytes: copy it again"
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "is no safetensors file: copy it again"
    expected = _LENGTH_BYTES + header_size + max(ends, default=0)
    if size < expected:
        return f"is incomplete, with {size:,} of {expected:,} bytes: copy it again"
    return None


def _explain_pickle(file: Path, beginning: bytes) -> str | None:
    if beginning.startswith(b"PK"):
        # The table of contents of a zip file is at its end.
        return None if zipfile.is_zipfile(file) else f"is incomplete, with {file.stat().st_size:,} bytes: copy it again"
    return None if beginning.startswith(b"\x80") else "is no file of torch.save: copy it again"


def _explain_json(file: Path) -> str | None:
    try:
        json.loads(file.read_bytes())
    except ValueError as error:
        return f"is not JSON ({error}): correct it or copy it again"
    return None
