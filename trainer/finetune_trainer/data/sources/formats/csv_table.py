"""CSV and TSV."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

from finetune_trainer.data.records.columns import list_names, missing_columns
from finetune_trainer.data.records.record import Record
from finetune_trainer.data.sources.decoding.lines import encoding_of, numbered_lines
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.formats.base import FileDetails, Format
from finetune_trainer.data.sources.formats.csv_dialect import csv_reader, find_delimiter, name_of
from finetune_trainer.data.sources.names import uncompressed_name
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.protocol.outcome import DataError

TAB_SUFFIXES = (".tsv", ".tab")
SAMPLED_LINES = 50
DIRECTIVE = "sep="  # Excel's first line, which names the delimiter


class _Table(NamedTuple):
    """A file's delimiter, and its lines after the one that only names the delimiter, the first of which has this number."""

    delimiter: str
    lines: Iterator[str]
    first_line: int


def _open(file: File, options: ReadOptions) -> _Table:
    lines = (line.text for line in numbered_lines(file, options.encoding))
    sample = list(islice(lines, SAMPLED_LINES))
    delimiter, first_line = options.csv.delimiter, 1
    if sample and sample[0].lower().startswith(DIRECTIVE) and len(sample[0].rstrip("\r\n")) == len(DIRECTIVE) + 1:
        delimiter, first_line = delimiter or sample[0][len(DIRECTIVE)], 2
        sample = sample[1:]
    if delimiter is None and uncompressed_name(file.name).endswith(TAB_SUFFIXES):
        delimiter = "\t"
    return _Table(delimiter or find_delimiter(sample, options.csv.quote), chain(sample, lines), first_line)


def _read(file: File, options: ReadOptions) -> Iterator[Record]:
    delimiter, lines, first_line = _open(file, options)
    reader = csv_reader(lines, delimiter, options.csv.quote)
    names: list[str] | None = None
    next_line = first_line  # a quoted field may span several lines, so that a row begins where the one before it ended
    try:
        for fields in reader:
            origin, next_line = f"{file.name}:{next_line}", reader.line_num + first_line
            if not fields:
                continue
            if names is None:
                names = fields if options.csv.header else [str(number) for number in range(len(fields))]
                _validate_header(names, delimiter, options, origin)
                if options.csv.header:
                    continue
            if len(fields) != len(names):
                raise DataError(
                    f"{origin}: {len(fields)} fields under a header of {len(names)}: quote fields that hold a "
                    f"{name_of(delimiter)}, or set csv.delimiter"
                )
            if options.csv.header and fields == names and len(names) > 1:
                raise DataError(f"{origin}: the line repeats the header, as in files that were joined: remove it")
            if delimiter == "\t":
                _validate_quotes(fields, origin)
            yield Record(dict(zip(names, fields, strict=True)), origin)
    except csv.Error as error:
        raise DataError(
            f"{file.name}:{next_line}: not valid CSV ({error}): write a quote inside a field twice, or set csv.quote: '' if "
            "quotes have no meaning"
        ) from error


def _validate_header(names: Sequence[str], delimiter: str, options: ReadOptions, origin: str) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1 and name]
    if repeated:
        raise DataError(f"{origin}: several columns are named {', '.join(repeated)}: give each a name of its own")
    needed = options.columns or ()
    missing = missing_columns(needed, names)
    if missing and len(missing) == len(needed):
        remedies = ["correct columns", "csv.delimiter"]
        if options.csv.header:
            remedies.append("csv.header: false if the first line is a row")
        raise DataError(
            f"{origin}: there is no column {' or '.join(missing)} (there are: {list_names(names)}; divided by "
            f"{name_of(delimiter)}): {', or set '.join(remedies)}"
        )


def _validate_quotes(fields: Sequence[str], origin: str) -> None:
    """Raises DataError if a quoted field holds exactly the tabs of the rows that it spans, as with two unrelated quotes."""
    breaks = sum(field.count("\n") for field in fields)
    tabs = sum(field.count("\t") for field in fields)
    if breaks and tabs == breaks * (len(fields) - 1) and tabs:
        raise DataError(
            f"{origin}: a quoted field spans {breaks + 1} lines that look like rows: set csv.quote: '' if quotes have no "
            "meaning, or correct the quotes"
        )


def _inspect(file: File, options: ReadOptions) -> FileDetails:
    return FileDetails(encoding_of(file, options.encoding), name_of(_open(file, options).delimiter))


CSV = Format((".csv", *TAB_SUFFIXES), _read, inspect=_inspect)
