"""The interfaces of a data source: records as they are stored, and the rows that are made from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from finetune_trainer.data.records.record import Record
from finetune_trainer.data.records.row import Row


@dataclass(frozen=True)
class SourceDescription:
    """How a source is read, for people."""

    address: str
    format: str
    """The formats of its files, separated by commas."""
    files: int
    columns: Mapping[str, str] = field(default_factory=dict)
    """The column of each role."""
    compression: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    conversation: str | None = None
    """The shape of its conversations; None for data without conversations."""
    notes: tuple[str, ...] = ()
    """Sentences about choices that the source's files led to."""


class RecordSource(Protocol):
    """Records on this machine; reading them needs no network."""

    @property
    def identity(self) -> Any:
        """A JSON value that changes when the records change."""
        ...

    def contents(self, digest: Callable[[Path], str]) -> list[tuple[str, str]]:
        """Name and digest of each file, in the order of reading; empty for data that is not in files.

        `digest` computes the digest of a local file.
        """
        ...

    def records(self) -> Iterator[Record]:
        """Read all records from the beginning; raises DataError for a file or record that cannot be read."""
        ...

    def describe(self) -> SourceDescription:
        """How the records are read, found by looking at the first file; raises DataError if it cannot be read."""
        ...


class Source(Protocol):
    """A resolved source of rows; reading it needs no network."""

    @property
    def identity(self) -> Any:
        """A JSON value that changes when the rows change."""
        ...

    def contents(self, digest: Callable[[Path], str]) -> list[tuple[str, str]]:
        """Name and digest of each file, in the order of reading; empty for data that is not in files.

        `digest` computes the digest of a local file.
        """
        ...

    def rows(self) -> Iterator[Row]:
        """Read all rows from the beginning; raises DataError for a file or row that cannot be used."""
        ...

    def describe(self) -> SourceDescription:
        """How the rows are read; raises DataError if the first file cannot be read."""
        ...
