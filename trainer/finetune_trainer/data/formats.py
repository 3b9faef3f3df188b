"""How rows are read from each kind of file. Every format is one entry of `FORMATS`.

The readers are our own where a library would not say which line is wrong.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from finetune_trainer.data.files import File
from finetune_trainer.outcome import DataError

# The csv module's own limit of 128 kB is below the length of an ordinary article.
csv.field_size_limit(2**31 - 1)


class Document(NamedTuple):
    """One text to learn from; `origin` is its file and, where it has one, its line or row, counted from 1."""

    text: str
    origin: str


Reader = Callable[[File, str], Iterator[Document]]


@dataclass(frozen=True)
class Format:
    """A kind of file: how its names end, and the reader that gives the documents of one file from the named column."""

    suffixes: tuple[str, ...]
    read: Reader


def format_of(file: File, wanted: str) -> Format:
    """The format by name, or for Auto by the file's suffix; raises DataError for a suffix that no format has."""
    if wanted != "Auto":
        return FORMATS[wanted]
    for candidate in FORMATS.values():
        if file.name.lower().endswith(candidate.suffixes):
            return candidate
    raise DataError(f"{file.name}: no format has this suffix: set the data's format to one of {', '.join(FORMATS)}")


def suffixes_of(wanted: str) -> tuple[str, ...]:
    """How the names of a format's files end; for Auto, of all formats."""
    chosen = FORMATS.values() if wanted == "Auto" else [FORMATS[wanted]]
    return tuple(suffix for item in chosen for suffix in item.suffixes)


def document(value: Any, column: str, origin: str) -> Document:
    """A checked document; raises DataError unless the value is text that UTF-8 can hold."""
    if not isinstance(value, str):
        found = "null" if value is None else f"a {type(value).__name__}"
        raise DataError(f"{origin}: column {column} is {found}, not a string: correct or remove the row")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{origin}: column {column} holds half of a surrogate pair at character {error.start + 1}: correct the row"
            ) from error
    return Document(value, origin)


def missing_column(column: str, present: object, origin: str) -> DataError:
    """The error for a column that is not there, naming those that are."""
    names = ", ".join(sorted(str(name) for name in present)) if hasattr(present, "__iter__") else ""
    return DataError(f"{origin}: there is no column {column} (there are: {names or 'none'}): set columns.text to one of them")


def _lines(file: File) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 file, compressed or not; raises DataError for other bytes and for an empty file."""
    number = 0
    try:
        with gzip.open(file.path) if file.name.endswith(".gz") else file.path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):  # the last number is needed after the loop
                yield number, _decoded(line, f"{file.name}:{number}", first=number == 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{file.name}:{number + 1}: the compressed file is damaged ({error}): copy it anew") from error
    except OSError as error:
        raise DataError(f"{file.name}: the file cannot be read ({error.strerror}): correct its mode or owner") from error
    if number == 0:
        raise DataError(f"{file.name}: the file is empty: fill it or leave it out")


def _decoded(line: bytes, origin: str, *, first: bool = False) -> str:
    try:
        return line.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{origin}: byte 0x{line[error.start]:02x} at column {error.start + 1} is not UTF-8: convert the file to UTF-8"
        ) from error


def _read_json_lines(file: File, column: str) -> Iterator[Document]:
    for number, line in _lines(file):
        if not line.strip():
            continue
        origin = f"{file.name}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{origin}: not valid JSON ({error.msg} at column {error.colno}): write one complete object a line"
            ) from error
        except RecursionError as error:
            raise DataError(f"{origin}: JSON nested too deeply: correct or remove the line") from error
        if not isinstance(row, dict):
            raise DataError(f"{origin}: a JSON {type(row).__name__} and not an object: write one object a line")
        if column not in row:
            raise missing_column(column, row, origin)
        yield document(row[column], column, origin)


def _read_csv(file: File, column: str) -> Iterator[Document]:
    rows = csv.reader((line for _, line in _lines(file)), strict=True)
    start = 1
    try:
        header = next(rows)
        if column not in header:
            raise missing_column(column, header, f"{file.name}:1")
        index, start = header.index(column), rows.line_num + 1
        for row in rows:
            origin, start = f"{file.name}:{start}", rows.line_num + 1
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(f"{origin}: {len(row)} fields under a header of {len(header)}: quote fields that hold commas")
            yield document(row[index], column, origin)
    except csv.Error as error:
        raise DataError(f"{file.name}:{start}: not valid CSV ({error}): correct the quotes of this row") from error


def _read_parquet(file: File, column: str) -> Iterator[Document]:
    try:
        with pyarrow.parquet.ParquetFile(file.path, memory_map=True) as table:
            names = table.schema_arrow.names
            if column not in names:
                raise missing_column(column, names, file.name)
            number = 0
            for batch in table.iter_batches(batch_size=1024, columns=[column]):
                for number, value in enumerate(batch.column(0).to_pylist(), start=number + 1):  # noqa: B020  # counts on
                    yield document(value, column, f"{file.name}:{number}")
    except (pyarrow.ArrowException, OSError) as error:
        text = str(error).split("\n", 1)[0]
        raise DataError(f"{file.name}: not a readable Parquet file ({text}): write it anew") from error


def _read_text(file: File, _column: str) -> Iterator[Document]:
    if file.path.stat().st_size == 0:
        # Among many files, such as a package's __init__.py, an empty one is nothing out of the ordinary.
        yield Document("", file.name)
        return
    yield Document("".join(line for _, line in _lines(file)), file.name)


FORMATS: dict[str, Format] = {
    "JSONLines": Format((".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz"), _read_json_lines),
    "CSV": Format((".csv", ".csv.gz"), _read_csv),
    "Parquet": Format((".parquet",), _read_parquet),
    "Text": Format(
        (
            ".txt", ".txt.gz", ".text", ".md", ".rst", ".tex", ".html", ".xml", ".yaml", ".yml", ".toml", ".py", ".pyi", ".c",
            ".h", ".cc", ".cpp", ".hpp", ".rs", ".go", ".java", ".kt", ".scala", ".js", ".ts", ".rb", ".php", ".sh", ".sql",
            ".r", ".jl", ".lua",
        ),
        _read_text,
    ),
}  # fmt: skip
