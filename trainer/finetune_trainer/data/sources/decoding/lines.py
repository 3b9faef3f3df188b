"""The lines of a text file, whatever its compression, encoding and line ends."""

from __future__ import annotations

import codecs
import contextlib
import io
import re
from collections.abc import Iterator
from typing import NamedTuple, TextIO

from finetune_trainer.data.sources.decoding.compression import open_bytes
from finetune_trainer.data.sources.files import File
from finetune_trainer.protocol.outcome import DataError

_MARKS = (  # UTF-32 comes first, because its mark begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
UTF8 = "utf-8"
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")  # a byte that the error handler surrogateescape keeps


class Line(NamedTuple):
    """A line with its end, and its number, counted from 1."""

    number: int
    text: str


def encoding_of(file: File, encoding: str | None) -> str:
    """The encoding that the file's byte-order mark says, or else `encoding`, by default UTF-8."""
    with open_bytes(file) as stream:
        return _encoding_of_start(stream.read(4), encoding)


def numbered_lines(file: File, encoding: str | None) -> Iterator[Line]:
    r"""The lines of a text file; they end with \n, \r\n or \r.

    Raises DataError for text that is not in the encoding, a NUL character, a damaged or unreadable file, and an empty one.
    """
    number = 0
    with open_text(file, encoding) as stream:
        for number, text in enumerate(stream, start=1):  # the last number is used after the loop
            if "\0" in text:
                raise _nul_error(file, number, text, stream.encoding)
            yield Line(number, text)
    if number == 0:
        raise DataError(f"{file.name}: the file is empty: fill it or leave it out")


@contextlib.contextmanager
def open_text(file: File, encoding: str | None, newline: str | None = "") -> Iterator[TextIO]:
    r"""The text of a file; bytes that are not in the encoding are raised as DataError.

    With `newline` "", lines keep the ends that they have; with None each ends with \n.
    """
    with open_bytes(file) as binary:
        buffered = io.BufferedReader(binary)  # type: ignore[type-var]  # any stream that has read1 or readinto
        codec = _encoding_of_start(buffered.peek(4)[:4], encoding)
        try:
            yield io.TextIOWrapper(buffered, codec, newline=newline)
        except UnicodeDecodeError as error:
            raise _undecodable(file, codec) from error
        except UnicodeError as error:  # UTF-16 and UTF-32 without the mark that says the order of the bytes
            raise DataError(
                f"{file.name}: the file does not begin with a byte-order mark: set encoding: {codec}-le or {codec}-be"
            ) from error


def _encoding_of_start(start: bytes, encoding: str | None) -> str:
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    return encoding or UTF8


def _undecodable(file: File, codec: str) -> DataError:
    """The error for the first byte that is not in the encoding, with its line and column."""
    where, what = file.name, "the file"
    with contextlib.suppress(UnicodeDecodeError), open_bytes(file) as binary:
        for number, text in enumerate(io.TextIOWrapper(binary, codec, "surrogateescape", newline=""), start=1):
            if escaped := _ESCAPED_BYTE.search(text):
                column = len(text[: escaped.start()].encode(codec)) + 1
                where, what = f"{file.name}:{number}", f"byte 0x{ord(escaped.group()) - 0xDC00:02x} at column {column}"
                break
    return DataError(f"{where}: {what} is not {_title(codec)}: set encoding to that of the file, or convert the file")


def _nul_error(file: File, number: int, text: str, codec: str) -> DataError:
    return DataError(
        f"{file.name}:{number}: character {text.index(chr(0)) + 1} is NUL, read as {_title(codec)}: remove it, or set encoding "
        "to that of the file, such as utf-16-le"
    )


def _title(codec: str) -> str:
    return "UTF-8" if codec in (UTF8, "utf-8-sig") else codec
