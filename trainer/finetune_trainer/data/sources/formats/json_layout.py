"""Decides where the rows of a JSON document are, from an outline of the document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from finetune_trainer.data.records.columns import list_names, missing_columns
from finetune_trainer.data.sources.decoding.json_text import JSONReader

_MESSAGE_NAMES = ({"role", "content"}, {"from", "value"})
_SPLIT_ORIENTATION = {"columns", "data"}  # pandas' orient="split"


class Kind(Enum):
    """What a part of a document is."""

    OBJECT = "object"
    OBJECTS = "list of objects"
    VALUES = "list of values"
    VALUE = "value"


@dataclass(frozen=True)
class Outline:
    """A part of a document without its values."""

    kind: Kind
    members: dict[str, Outline] = field(default_factory=dict)
    """The members of an object."""
    length: int = 0
    """The number of items of a list."""
    item_names: tuple[str, ...] = ()
    """The names in the first item of a list of objects."""


class Layout(Enum):
    """How a document holds rows."""

    ROW = "one row"
    LIST = "a list of objects"
    BY_NAME = "objects by name"
    COLUMNS = "columns"


class Rows(NamedTuple):
    """The place of the rows in a document; the path is empty where the document itself holds them."""

    layout: Layout
    path: tuple[str, ...] = ()


class LayoutError(Exception):
    """The rows of a document cannot be found; the message gives cause and remedy."""


def outline_of(reader: JSONReader) -> Outline:
    """Read the next value, which may be large, and keep its outline."""
    match reader.peek():
        case "{":
            return Outline(Kind.OBJECT, {name: outline_of(reader) for name in reader.members()})
        case "[":
            first, length = None, 0
            for item in reader.items():
                first = item.value if length == 0 else first
                length += 1
            if isinstance(first, dict):
                return Outline(Kind.OBJECTS, length=length, item_names=tuple(first))
            return Outline(Kind.VALUES, length=length)
        case _:
            reader.skip()
            return Outline(Kind.VALUE)


def find_rows(document: Outline | None, path: str | None, columns: Sequence[str] | None) -> Rows:
    """Where the rows of an object, or of an array (None), are: below `path`, or else where `columns` are found.

    Raises LayoutError if `path` leads nowhere, or if there are several places.
    """
    if document is None:
        if path is not None:
            raise LayoutError(f"the document is an array and has no {path}: remove records")
        return Rows(Layout.LIST)
    if path is not None:
        return Rows(Layout.LIST, _given_path(document, path))
    members = document.members
    if members.keys() >= _SPLIT_ORIENTATION and members["data"].kind == members["columns"].kind == Kind.VALUES:
        raise LayoutError("the document holds the columns' names and lists of values: write it with pandas' orient='records'")
    if _holds_columns(document):
        return Rows(Layout.COLUMNS)
    if _is_conversation(document) or (columns is not None and not missing_columns(columns, members)):
        return Rows(Layout.ROW)
    if _holds_rows_by_name(document, columns):
        return Rows(Layout.BY_NAME)
    lists = dict(_lists_of_objects(document))
    if len(lists) > 1 and columns is not None:
        matching = {path: item for path, item in lists.items() if not missing_columns(columns, item.item_names)}
        lists = matching or lists
    if len(lists) > 1:
        paths = ", ".join(".".join(path) for path in lists)
        raise LayoutError(f"there are several lists of objects ({paths}): name the one with the rows in records")
    return Rows(Layout.LIST, next(iter(lists))) if lists else Rows(Layout.ROW)


def _given_path(document: Outline, path: str) -> tuple[str, ...]:
    names = tuple(path.split("."))
    part = document
    for number, name in enumerate(names):
        if name not in part.members:
            before = ".".join(names[:number])
            where = f"{before} holds" if before else "there are"
            raise LayoutError(f"there is no {path} ({where}: {list_names(part.members)}): correct records")
        part = part.members[name]
    if part.kind != Kind.OBJECTS:
        raise LayoutError(f"{path} is no list of objects (it is {_with_article(part.kind)}): name such a list in records")
    return names


def _with_article(kind: Kind) -> str:
    return f"an {kind.value}" if kind is Kind.OBJECT else f"a {kind.value}"


def _holds_columns(document: Outline) -> bool:
    """Whether the object gives the values of each column: as lists, or by the numbers of the rows as pandas writes them."""
    columns = list(document.members.values())
    first = columns[0] if columns else Outline(Kind.VALUE)
    if first.kind is Kind.OBJECT:
        is_numbered = bool(first.members) and all(name.isdecimal() for name in first.members)
        return is_numbered and all(column.members.keys() == first.members.keys() for column in columns)
    if not all(column.kind in (Kind.VALUES, Kind.OBJECTS) and column.length == first.length for column in columns):
        return False
    return first.length > 1 and any(column.kind is Kind.VALUES for column in columns)


def _is_conversation(document: Outline) -> bool:
    """Whether the object is one row with messages, which are objects but no rows."""
    return any(map(_holds_messages, document.members.values()))


def _holds_messages(part: Outline) -> bool:
    return any(names <= set(part.item_names) for names in _MESSAGE_NAMES)


def _holds_rows_by_name(document: Outline, columns: Sequence[str] | None) -> bool:
    """Whether each member is an object with the columns, or where they are not known, with the names of all others."""
    rows = list(document.members.values())
    if not all(row.kind is Kind.OBJECT for row in rows):
        return False
    if columns is None:
        return len(rows) > 1 and all(row.members.keys() == rows[0].members.keys() for row in rows)
    return bool(rows) and not any(missing_columns(columns, row.members) for row in rows)


def _lists_of_objects(document: Outline, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Outline]]:
    for name, member in document.members.items():
        if member.kind is Kind.OBJECTS:
            yield (*path, name), member
        yield from _lists_of_objects(member, (*path, name))
