"""JSON: one object a line, or a document with an array of rows, rows below a key, columns, or SQuAD's articles."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from finetune_trainer.data.records.record import Record
from finetune_trainer.data.sources.decoding.json_text import JSONReader, JSONTextError, Located, parse_line
from finetune_trainer.data.sources.decoding.lines import encoding_of, numbered_lines, open_text
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.formats import squad
from finetune_trainer.data.sources.formats.base import FileDetails, Format
from finetune_trainer.data.sources.formats.json_layout import Layout, LayoutError, Rows, find_rows, outline_of
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.protocol.outcome import DataError

_KINDS = {list: "an array", str: "a string", int: "a number", float: "a number", bool: "a boolean", type(None): "null"}


def _read_lines(file: File, options: ReadOptions) -> Iterator[Record]:
    """Read one object a line, or the array that a file with this name may hold as well."""
    if _first_character(file, options) == "[":
        yield from _read_document(file, options)
        return
    _validate_without_path(file, options)
    for number, text in numbered_lines(file, options.encoding):
        if text.strip():
            try:
                value = parse_line(text.rstrip("\r\n"), number)
            except JSONTextError as error:
                raise _invalid(file, error, "write one complete object a line") from error
            yield _record(value, f"{file.name}:{number}", "write one object a line")


def _read_document(file: File, options: ReadOptions) -> Iterator[Record]:
    """Read a document, or several objects one after another."""
    rows = _find_rows(file, options)
    if rows is None:
        yield from _read_lines(file, options)
        return
    previous = 0
    with open_text(file, options.encoding, newline=None) as stream:
        try:
            for number, (value, line) in enumerate(_values(JSONReader(stream), rows), start=1):
                origin = f"{file.name}:{line}" if line != previous else f"{file.name}:{line} (row {number})"
                previous = line
                yield from _expand(_record(value, origin, "write an object for each row"))
        except JSONTextError as error:
            raise _invalid(file, error, "correct the document") from error


def _values(reader: JSONReader, rows: Rows) -> Iterator[Located]:
    """The rows of the document that the reader reads; their lines are exact except in a document of columns."""
    for name in rows.path:
        for member in reader.members():
            if member == name:
                break
            reader.skip()
    match rows.layout:
        case Layout.ROW:
            while reader.peek():
                yield reader.value()
        case Layout.LIST:
            yield from reader.items()
            if not rows.path and reader.peek():
                raise JSONTextError("more text follows the array", reader.line)
        case Layout.BY_NAME:
            for _ in reader.members():
                yield reader.value()
        case Layout.COLUMNS:
            document, line = reader.value()
            columns = [values.values() if isinstance(values, dict) else values for values in document.values()]
            for values in zip(*columns, strict=True):
                yield Located(dict(zip(document, values, strict=True)), line)


@functools.lru_cache(maxsize=1024)
def _find_rows(file: File, options: ReadOptions) -> Rows | None:
    """Where the rows are; None if each line is an object. Raises DataError.

    Rows are read several times in a run, and a document has to be read to its end for its outline.
    """
    with open_text(file, options.encoding, newline=None) as stream:
        reader = JSONReader(stream)
        try:
            match reader.peek():
                case "":
                    raise DataError(f"{file.name}: the file is empty: fill it or leave it out")
                case "[":
                    return find_rows(None, options.json_records, options.columns)
            line = reader.line
            document = outline_of(reader)
            is_one_line = reader.line == line
            if reader.peek():
                _validate_without_path(file, options)
                return None if is_one_line else Rows(Layout.ROW)
            return find_rows(document, options.json_records, options.columns)
        except RecursionError as error:
            raise DataError(f"{file.name}:{reader.line}: JSON nested too deeply: correct the document") from error
        except JSONTextError as error:
            raise _invalid(file, error, "correct the document") from error
        except LayoutError as error:
            raise DataError(f"{file.name}: {error}") from error


def _validate_without_path(file: File, options: ReadOptions) -> None:
    if options.json_records is not None:
        raise DataError(f"{file.name}: each object is a row, so that there is no {options.json_records}: remove records")


def _first_character(file: File, options: ReadOptions) -> str:
    with open_text(file, options.encoding, newline=None) as stream:
        return JSONReader(stream).peek()


def _record(value: Any, origin: str, remedy: str) -> Record:
    if not isinstance(value, dict):
        raise DataError(f"{origin}: {_KINDS[type(value)]} and not an object: {remedy}")
    return Record(value, origin)


def _expand(record: Record) -> Iterator[Record]:
    """The record, or the questions of an article of SQuAD."""
    if not squad.is_article(record.values):
        yield record
        return
    for place, question in squad.questions(record.values):
        yield Record(question, f"{record.origin} {place}")


def _invalid(file: File, error: JSONTextError, remedy: str) -> DataError:
    return DataError(f"{file.name}:{error.line}: not valid JSON ({error}): {remedy}")


def _inspect_lines(file: File, options: ReadOptions) -> FileDetails:
    return FileDetails(encoding=encoding_of(file, options.encoding))


def _inspect(file: File, options: ReadOptions) -> FileDetails:
    return FileDetails(encoding=encoding_of(file, options.encoding), notes=_notes(_find_rows(file, options)))


def _notes(rows: Rows | None) -> tuple[str, ...]:
    match rows:
        case None | Rows(Layout.ROW):
            return ()
        case Rows(Layout.LIST, path):
            return (f"The rows are the list {'.'.join(path)}.",) if path else ()
        case Rows(Layout.BY_NAME):
            return ("The rows are the members of one object.",)
    return ("The document holds columns.",)


JSON_LINES = Format((".jsonl", ".ndjson", ".jsonlines", ".ldjson"), _read_lines, inspect=_inspect_lines)
JSON = Format((".json",), _read_document, inspect=_inspect)
