r"""What a role reads of a record: a column, a path into one, or a template of columns.

A path names a part of a column: `translation.en`, `answers[0].text`. A template is a text with columns or paths in braces:
`{instruction}\n\n{input}`. A column whose name is the whole expression comes before a path or a template.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

_STEP = re.compile(r"\.([^.\[\]{}]+)|\[(\d+)\]")
_STEPS = re.compile(rf"(?:{_STEP.pattern})+")
_OPERATORS = frozenset(".[{")  # one of them is in each path and template
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


class ColumnError(Exception):
    """A record lacks what an expression names, or holds something else there; the message is the cause."""

    def __init__(self, cause: str, *, lists_columns: bool = False) -> None:
        super().__init__(cause)
        self.lists_columns = lists_columns
        """Whether the cause lists columns that could be named instead."""


class _Line(NamedTuple):
    """A line of a template: literal texts and expressions in turn, beginning and ending with a literal text."""

    parts: tuple[str, ...]

    @property
    def expressions(self) -> tuple[str, ...]:
        return self.parts[1::2]


def select(record: Mapping[str, Any], expression: str) -> Any:
    """The value of a column, a path or a template in the record; raises ColumnError if the record has no such value."""
    if expression in record:
        return record[expression]
    lines = _template(expression)
    if lines is None:
        return _select_path(record, expression)
    try:
        return _render(record, lines)
    except ColumnError as error:
        raise ColumnError(f"{error} for the template {shown(expression)}") from error


class Selection(Mapping[str, Any]):
    """A record whose keys are also paths and templates; iterating over it gives the columns alone."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self._record = record

    def __getitem__(self, expression: str) -> Any:
        if expression in self._record:
            return self._record[expression]
        if not _OPERATORS.intersection(expression):
            raise KeyError(expression)
        try:
            return select(self._record, expression)
        except ColumnError as error:
            raise KeyError(expression) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._record)

    def __len__(self) -> int:
        return len(self._record)


def columns_of(expression: str, present: Collection[str]) -> list[str]:
    """The columns that an expression reads; for one that is not present, the name that it should have."""
    if expression in present:
        return [expression]
    lines = _template(expression)
    if lines is None:
        return [_split_path(expression, present)[0]]
    columns = []
    for line in lines:
        for part in line.expressions:
            columns.append(_split_path(part, present)[0])
    return columns


def missing_columns(expressions: Iterable[str], present: Collection[str]) -> list[str]:
    """The columns that the expressions read and that are not present, each once."""
    missing: dict[str, None] = {}
    for expression in expressions:
        missing.update(dict.fromkeys(name for name in columns_of(expression, present) if name not in present))
    return list(missing)


def needed_columns(expressions: Iterable[str] | None, present: Collection[str]) -> list[str]:
    """The columns to read for the expressions, in their order in the table: all for None, and all if one is missing."""
    if expressions is None:
        return list(present)
    needed: set[str] = set()
    for expression in expressions:
        needed.update(columns_of(expression, present))
    return [name for name in present if name in needed] if needed <= set(present) else list(present)


def shown(expression: str) -> str:
    """The expression on one line, for error messages."""
    return expression.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def list_names(names: Iterable[object]) -> str:
    """The names for error messages, in quotes where white space at an end could not be seen."""
    texts = sorted(str(name) for name in names)
    return ", ".join(text if text == text.strip() and text else repr(text) for text in texts) or "none"


@functools.lru_cache(maxsize=1024)
def _template(expression: str) -> tuple[_Line, ...] | None:
    """The lines of a template; None for an expression without braces."""
    if not _PLACEHOLDER.search(expression):
        return None
    return tuple(_Line(tuple(_PLACEHOLDER.split(line))) for line in expression.split("\n"))


def _split_path(expression: str, present: Collection[str]) -> tuple[str, str]:
    """The column that a path begins with, and the rest: the longest column that is present, or else the first part."""
    splits = [(expression, "")]
    for match in reversed(list(_STEP.finditer(expression))):
        if _STEPS.fullmatch(expression, match.start()):
            splits.append((expression[: match.start()], expression[match.start() :]))
    for column, steps in splits:
        if column in present:
            return column, steps
    return splits[-1]


def _select_path(record: Mapping[str, Any], expression: str) -> Any:
    column, steps = _split_path(expression, record)
    if column not in record:
        raise ColumnError(f"there is no column {column} (there are: {list_names(record)})", lists_columns=True)
    value, path = record[column], column
    for match in _STEP.finditer(steps):
        key, position = match.groups()
        if key and isinstance(value, Mapping) and key in value:
            value = value[key]
        elif position and isinstance(value, list) and int(position) < len(value):
            value = value[int(position)]
        else:
            raise ColumnError(f"there is no {path}{match.group()} ({path} {_describe(value)})")
        path += match.group()
    return value


def _describe(value: Any) -> str:
    if value is None:
        return "is null"
    if isinstance(value, Mapping):
        return f"holds: {list_names(value)}"
    if isinstance(value, list):
        return f"is a list of {len(value)}"
    return f"is a {type(value).__name__}"


def _render(record: Mapping[str, Any], lines: Iterable[_Line]) -> str:
    """Fill in the columns.

    A line whose columns are all empty or null, and that has no other text, is left out together with the blank lines before it,
    or after it if no text comes before.
    """
    kept: list[str] = []
    is_after_gap = False  # whether nothing but empty columns came before
    for line in lines:
        text, is_empty = _render_line(record, line)
        if is_empty:
            while kept and not kept[-1].strip():
                kept.pop()
            is_after_gap = not kept
        elif not (is_after_gap and not text.strip()):
            kept.append(text)
            is_after_gap = False
    return "\n".join(kept)


def _render_line(record: Mapping[str, Any], line: _Line) -> tuple[str, bool]:
    """The line, and whether it consists of empty columns alone."""
    values = list(_texts(record, line))
    parts = list(line.parts)
    parts[1::2] = values
    text = "".join(parts)
    if values and not all(values):
        text = text.strip()
    return text, bool(values) and not any(values) and not text


def _texts(record: Mapping[str, Any], line: _Line) -> Iterator[str]:
    for expression in line.expressions:
        value = record[expression] if expression in record else _select_path(record, expression)
        if value is None or (isinstance(value, str) and not value.strip()):
            yield ""
        elif isinstance(value, str | int | float):
            yield str(value).lower() if isinstance(value, bool) else str(value)
        else:
            raise ColumnError(f"column {expression} {_describe(value)}, and a template can hold only texts and numbers")
