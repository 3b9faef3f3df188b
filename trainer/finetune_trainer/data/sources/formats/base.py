"""The definition of a file format, and helpers that the readers share."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from finetune_trainer.data.records.record import Record
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.protocol.outcome import DataError

Reader = Callable[[File, ReadOptions], Iterator[Record]]
"""Reads one file. Raises DataError for a file or record that cannot be read."""


@dataclass(frozen=True)
class Format:
    """A kind of file: the suffixes of its names, and its reader."""

    suffixes: tuple[str, ...]
    read: Reader
    images: bool | None = None
    """Whether each row is an image; None where that depends on the columns."""

    def supports(self, roles: Collection[str]) -> bool:
        """Whether such files can hold rows with these roles."""
        return self.images is None or self.images == ("image" in roles)


def numbered_lines(file: File) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file, gzip-compressed or not, counted from 1.

    Raises DataError for invalid UTF-8, a damaged or unreadable file, and an empty one.
    """
    number = 0
    try:
        with gzip.open(file.path) if file.name.endswith(".gz") else file.path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):  # the last number is used after the loop
                yield number, _decode(line, f"{file.name}:{number}", is_first=number == 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{file.name}:{number + 1}: the compressed file is damaged ({error}): copy it again") from error
    except OSError as error:
        raise DataError(f"{file.name}: the file cannot be read ({error.strerror}): correct its mode or owner") from error
    if number == 0:
        raise DataError(f"{file.name}: the file is empty: fill it or leave it out")


def _decode(line: bytes, origin: str, *, is_first: bool) -> str:
    encoding = "utf-8-sig" if is_first else "utf-8"  # only the first line may begin with a byte-order mark
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{origin}: byte 0x{line[error.start]:02x} at column {error.start + 1} is not UTF-8: convert the file to UTF-8"
        ) from error


def validate_columns(file: File, options: ReadOptions, present: Collection[str], kind: str) -> None:
    """Raises DataError if a column is read that a file of this kind cannot have; `kind` is a noun with its article."""
    for column in options.columns or ():
        if column not in present:
            raise DataError(f"{file.name}: {kind} has no column {column}: use JSONLines, CSV or Parquet, or another objective")
