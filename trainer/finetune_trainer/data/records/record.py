"""One record as a file stores it, before columns are chosen from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Record(NamedTuple):
    """Values by column."""

    values: Mapping[str, Any]
    origin: str
    """The file and, where the file has several records, the line or row, counted from 1."""
    folder: Path | None = None
    """The folder that paths in the values are relative to."""
