"""The definition of a file format, and a check that the readers of fixed columns share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from finetune_trainer.data.records.columns import missing_columns
from finetune_trainer.data.records.record import Record
from finetune_trainer.data.sources.decoding.lines import encoding_of
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.protocol.outcome import DataError

Reader = Callable[[File, ReadOptions], Iterator[Record]]
"""Reads one file. Raises DataError for a file or record that cannot be read."""


@dataclass(frozen=True)
class FileDetails:
    """What a reader found out about a file."""

    encoding: str | None = None
    delimiter: str | None = None
    notes: tuple[str, ...] = ()
    """Sentences about choices that the file's content led to."""


def no_details(file: File, options: ReadOptions) -> FileDetails:
    """The details of a format that leaves nothing to find out."""
    return FileDetails()


def text_details(file: File, options: ReadOptions) -> FileDetails:
    """The details of a format that is text."""
    return FileDetails(encoding=encoding_of(file, options.encoding))


@dataclass(frozen=True)
class Format:
    """A kind of file: the suffixes of its names, without those of compressions, and its reader."""

    suffixes: tuple[str, ...]
    read: Reader
    images: bool | None = None
    """Whether each record is an image; None where that depends on the columns."""
    inspect: Callable[[File, ReadOptions], FileDetails] = no_details

    def supports(self, roles: Collection[str]) -> bool:
        """Whether such files can hold rows with these roles."""
        return self.images is None or self.images == ("image" in roles)


def validate_columns(file: File, options: ReadOptions, present: Collection[str], kind: str) -> None:
    """Raises DataError if a column is read that a file of this kind cannot have; `kind` is a noun with its article."""
    for column in missing_columns(options.columns or (), present):
        raise DataError(f"{file.name}: {kind} has no column {column}: set format to that of the file, or use another objective")
