"""Finds the delimiter of a CSV file from its first lines."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterable, Sequence
from typing import Any

DELIMITERS = (",", "\t", ";", "|")
NAMES = {"\t": "tab", ",": "comma", ";": "semicolon", " ": "space"}

# A quoted field may be longer than the csv module's default limit of 128 kB, which is shorter than an ordinary article.
csv.field_size_limit(2**31 - 1)


def name_of(delimiter: str) -> str:
    """The delimiter as it is named in sentences."""
    return NAMES.get(delimiter, delimiter)


def csv_reader(lines: Iterable[str], delimiter: str, quote: str) -> Any:
    """The csv module's reader of the lines; an empty `quote` means that quotes have no meaning."""
    if quote:
        return csv.reader(lines, strict=True, delimiter=delimiter, quotechar=quote)
    return csv.reader(lines, strict=True, delimiter=delimiter, quoting=csv.QUOTE_NONE)


def find_delimiter(lines: Sequence[str], quote: str) -> str:
    """The delimiter that divides the header and the rows after it into equally many fields.

    A comma if none divides the header: the file has one column. Among several, the one under which most rows agree with the
    header wins, then the one with most fields.
    """
    best, best_rank = ",", (0.0, 1)
    for delimiter in DELIMITERS:
        rows = _complete_rows(lines, delimiter, quote)
        width = len(rows[0]) if rows else 1
        if width == 1:
            continue
        agreeing = sum(len(row) == width for row in rows) / len(rows)
        if (agreeing, width) > best_rank:
            best, best_rank = delimiter, (agreeing, width)
    return best


def _complete_rows(lines: Sequence[str], delimiter: str, quote: str) -> list[list[str]]:
    """The rows that the lines hold, up to the first that cannot be parsed or is not complete."""
    rows: list[list[str]] = []
    with contextlib.suppress(csv.Error):
        for row in csv_reader(lines, delimiter, quote):
            if row:
                rows.append(row)
    return rows
