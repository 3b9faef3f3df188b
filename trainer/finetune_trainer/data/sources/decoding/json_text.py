"""Parts of JSON texts with their lines: the values of an array or object one after another, as they are read from a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

CHUNK_CHARACTERS = 1 << 16
_WHITESPACE = " \t\n\r"
_MAX_UNFINISHED_CHARACTERS = 16
"""An error this close to the end of what was read may be a literal or an escape that is not complete yet."""


class JSONTextError(Exception):
    """The text is not valid JSON; the message is the cause."""

    def __init__(self, cause: str, line: int, column: int | None = None) -> None:
        super().__init__(cause if column is None else f"{cause} at column {column}")
        self.line = line


class Located(NamedTuple):
    """A value and the line that it begins at, counted from 1."""

    value: Any
    line: int


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object; raises ValueError for a name that it holds twice, of which a plain parser would keep the last one."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object names {repeated!r} twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_names)


def parse_line(text: str, line: int) -> Any:
    """The one value that a line holds; raises JSONTextError."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise JSONTextError(error.msg, line, error.colno) from error
    except RecursionError as error:
        raise JSONTextError("nested too deeply", line) from error
    except ValueError as error:
        raise JSONTextError(str(error), line) from error


class JSONReader:
    r"""Reads a JSON text from a stream value by value, and keeps only the part in memory that holds the next one.

    The lines of the stream end with \n. All methods raise JSONTextError for text that is not valid JSON.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text = ""
        self._position = 0
        self._is_complete = False
        self.line = 1
        """The line of the next character."""

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            start = self._position
            while start < len(self._text) and self._text[start] in _WHITESPACE:
                start += 1
            self._advance(start)
            if start < len(self._text):
                return self._text[start]
            if not self._read_more():
                return ""

    def expect(self, characters: str) -> str:
        """Read the next character, which must be one of these."""
        found = self.peek()
        if not found or found not in characters:
            cause = f"{found!r} where {' or '.join(characters)} should be" if found else "the text ends too early"
            raise JSONTextError(cause, self.line)
        self._advance(self._position + 1)
        return found

    def value(self) -> Located:
        """Read the next value."""
        self.peek()
        line = self.line
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                is_unfinished = error.msg.startswith("Unterminated string") or error.pos + _MAX_UNFINISHED_CHARACTERS > len(
                    self._text
                )
                if is_unfinished and self._read_more():
                    continue
                self._advance(error.pos)
                raise JSONTextError(error.msg, self.line) from error
            except RecursionError as error:
                raise JSONTextError("nested too deeply", line) from error
            except ValueError as error:
                raise JSONTextError(str(error), line) from error
            if end == len(self._text) and self._read_more():
                continue  # a number may go on
            self._advance(end)
            return Located(value, line)

    def items(self) -> Iterator[Located]:
        """Read the items of an array."""
        self.expect("[")
        if self.peek() == "]":
            self.expect("]")
            return
        yield self.value()
        while self.expect(",]") == ",":
            yield self.value()

    def members(self) -> Iterator[str]:
        """Read the names of an object; the caller reads or skips the value of each before the next."""
        self.expect("{")
        if self.peek() == "}":
            self.expect("}")
            return
        names: set[str] = set()
        while True:
            line = self.line
            name = self.value().value
            if not isinstance(name, str) or name in names:
                raise JSONTextError(f"an object names {name!r} twice" if name in names else "a name that is no string", line)
            names.add(name)
            self.expect(":")
            yield name
            if self.expect(",}") == "}":
                return

    def skip(self) -> None:
        """Read the next value and forget it."""
        match self.peek():
            case "[":
                for _ in self.items():
                    pass
            case "{":
                for _ in self.members():
                    self.skip()
            case _:
                self.value()

    def _advance(self, end: int) -> None:
        self.line += self._text.count("\n", self._position, end)
        self._position = end

    def _read_more(self) -> bool:
        """Read at least as much as is left unread, so that a long value takes linear time; False at the end."""
        if self._is_complete:
            return False
        rest = self._text[self._position :]
        more = self._stream.read(max(CHUNK_CHARACTERS, len(rest)))
        self._text, self._position, self._is_complete = rest + more, 0, not more
        return bool(more)
