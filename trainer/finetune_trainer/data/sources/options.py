"""How the files of a source are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ReadOptions:
    """The settings of a dataset that decide what a reader yields."""

    columns: tuple[str, ...] | None = None
    """The columns that are read, so that a table can leave out the others; None for all."""

    @property
    def identity(self) -> Any:
        """A JSON value that changes when a reader yields other records."""
        return [self.columns]
