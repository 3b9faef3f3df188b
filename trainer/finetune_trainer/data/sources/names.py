"""Suffixes of file names, whatever their case."""

from __future__ import annotations

COMPRESSION_SUFFIXES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "Zstandard", ".zstd": "Zstandard", ".tgz": "gzip"}
_EXPANDED = {".tgz": ".tar"}


def compression_suffix(name: str) -> str | None:
    """The suffix that says how the file is compressed, in lower case; None if there is none."""
    lower = name.lower()
    for suffix in COMPRESSION_SUFFIXES:
        if lower.endswith(suffix):
            return suffix
    return None


def uncompressed_name(name: str) -> str:
    """The name in lower case and without the suffix of a compression."""
    suffix = compression_suffix(name)
    return name.lower().removesuffix(suffix) + _EXPANDED.get(suffix, "") if suffix else name.lower()
