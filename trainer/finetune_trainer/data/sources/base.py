"""The interface of a data source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from finetune_trainer.data.records.row import Row


class Source(Protocol):
    """A resolved source of rows; reading it needs no network."""

    @property
    def identity(self) -> Any:
        """A JSON value that changes when the rows change."""
        ...

    def rows(self) -> Iterator[Row]:
        """Read all rows from the beginning; raises DataError for a file or row that cannot be used."""
        ...
