"""WebDataset: a tar archive in which the files of a sample share a name and differ in their extensions.

The part of the path before the first dot of the file's name is the sample's key, the rest its column
(https://github.com/webdataset/webdataset). Files of a sample are next to each other.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from finetune_trainer.data.records.record import Record
from finetune_trainer.data.sources.decoding.compression import open_bytes
from finetune_trainer.data.sources.decoding.json_text import JSONTextError, parse_line
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.formats.base import Format
from finetune_trainer.data.sources.formats.image_folder import IMAGE_SUFFIXES
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.protocol.outcome import DataError, first_line

_TEXTS, _NUMBERS = ("txt", "text", "transcript"), ("cls", "cls2", "class", "count", "index", "inx")
ALIASES = {"txt": "text", "cls": "label", **dict.fromkeys((suffix[1:] for suffix in IMAGE_SUFFIXES), "image")}
"""The default column of the role that a file with this extension usually has."""


class _Member(NamedTuple):
    """A file of an archive."""

    key: str
    extension: str
    content: bytes


def _read(file: File, options: ReadOptions) -> Iterator[Record]:
    values: dict[str, Any] = {}
    keys: set[str] = set()
    key = None
    with open_bytes(file) as stream:
        try:
            for member in _members(stream):
                if member.key != key:
                    if key is not None:
                        yield _record(key, values, file)
                    key, values = member.key, {}
                    if key in keys:
                        raise DataError(
                            f"{file.name}:{key}: other files are between those of the sample: sort the archive by name"
                        )
                    keys.add(key)
                if member.extension in values:
                    raise DataError(f"{file.name}:{key}: the sample has two files .{member.extension}: remove one")
                values[member.extension] = _decode(member, f"{file.name}:{key}.{member.extension}", options)
        except tarfile.TarError as error:
            raise DataError(f"{file.name}: not a readable tar archive ({first_line(error)}): write it again") from error
    if key is None:
        raise DataError(f"{file.name}: the archive holds no files: fill it or leave it out")
    yield _record(key, values, file)


def _members(stream: Any) -> Iterator[_Member]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for info in archive:
            path = PurePosixPath(info.name)
            name, dot, extension = path.name.partition(".")
            content = archive.extractfile(info) if info.isfile() and name and dot else None
            if content is not None:
                yield _Member((path.parent / name).as_posix(), extension.lower(), content.read())


def _decode(member: _Member, origin: str, options: ReadOptions) -> Any:
    kind = member.extension.rpartition(".")[2]
    try:
        if kind in _TEXTS:
            return member.content.decode(options.encoding or "utf-8")
        if kind in _NUMBERS:
            return int(member.content)
        if kind in ("json", "jsn"):
            return parse_line(member.content.decode(), 1)
    except (ValueError, JSONTextError) as error:
        raise DataError(f"{origin}: not a readable .{kind} ({first_line(error)}): correct or remove the sample") from error
    return member.content


def _record(key: str, values: dict[str, Any], file: File) -> Record:
    named = {"__key__": key, **values}
    for extension, value in values.items():
        named.setdefault(ALIASES.get(extension, extension), value)
    return Record(named, f"{file.name}:{key}")


WEB_DATASET = Format((".tar",), _read)
