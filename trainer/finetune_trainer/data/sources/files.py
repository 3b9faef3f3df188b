"""Which files an address of the data means: one file, a folder, or a pattern with * and **."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fsspec.utils import glob_translate  # type: ignore[import-untyped]  # ships no type information

from finetune_trainer.protocol.outcome import DataError
from finetune_trainer.storage.base import Credentials, Entry, Storage
from finetune_trainer.storage.copying import copy_objects
from finetune_trainer.storage.download import local_path


@dataclass(frozen=True)
class File:
    """One file of data: where it lies, the name that errors give it, and what changes when its content does."""

    path: Path
    name: str
    identity: tuple[str, int, int]
    within: str
    """Its path below the folder that the address means, or in which the address's one file is."""


class Found(NamedTuple):
    """The files that an address means, and those beside them that their rows may name."""

    files: list[File]
    beside: list[File]


def find(
    uri: str, *, suffixes: Sequence[str], beside: Sequence[str] = (), field: str, cache: Path, credentials: Credentials,
    secret: str | None,
) -> Found:  # fmt: skip
    """The files that `uri` means, in the order of their names; remote ones are copied below the cache.

    Of a folder, those whose name ends with one of `suffixes`; a file or a pattern is taken at its word. What ends with one of
    `beside` and lies in the files' folders or below them comes with them. Raises DataError, beginning with `field`, when there
    is no file.
    """
    path = local_path(uri, field)
    if path is None:
        found = _find_remote(uri, suffixes, beside, Storage.open(_base(uri), credentials, secret, field), cache)
    else:
        found = _find_local(suffixes, beside, path)
    if not found.files:
        raise DataError(f"{field}: {uri} {_why_nothing(uri, suffixes, field)}")
    return found


def all_of(folder: Path) -> list[File]:
    """The files of a folder and below it, in the order of their names."""
    return [_local_file(path, folder) for path in sorted(_below(folder, ("",)))]


def _find_local(suffixes: Sequence[str], beside: Sequence[str], path: Path) -> Found:
    root = path if path.is_dir() else path.parent
    if glob.has_magic(path.as_posix()):
        root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        paths = [Path(found) for found in glob.glob(path.as_posix(), recursive=True)]  # noqa: PTH207  # Path.glob takes no absolute patterns
    else:
        paths = list(_below(path, suffixes)) if path.is_dir() else [path]
    files = {found for found in paths if found.is_file()}
    others = {other for folder in {file.parent for file in files} for other in _below(folder, beside)} if beside else set()
    return Found(*([_local_file(one, root) for one in sorted(some)] for some in (files, others - files)))


def _below(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    wanted = (found for found in folder.rglob("*") if _is_wanted(found.relative_to(folder).as_posix(), suffixes))
    return (found for found in wanted if found.is_file())


def _local_file(path: Path, root: Path) -> File:
    status = path.stat()
    identity = (path.as_posix(), status.st_size, status.st_mtime_ns)
    return File(path, path.as_posix(), identity, path.relative_to(root).as_posix())


def _find_remote(uri: str, suffixes: Sequence[str], beside: Sequence[str], storage: Storage, cache: Path) -> Found:
    base = storage.uri
    rest = uri.removeprefix(base).strip("/")
    entries = storage.list()
    if glob.has_magic(rest):
        root = ""
        pattern = re.compile(glob_translate(rest))
        wanted = [entry for entry in entries if pattern.fullmatch(entry.path) and not _is_hidden(entry.path)]
    else:
        root = f"{rest}/" if rest else ""
        below = [entry for entry in entries if entry.path == rest or entry.path.startswith(root)]
        wanted = [entry for entry in below if entry.path == rest or _is_wanted(entry.path.removeprefix(root), suffixes)]
    if not wanted:
        return Found([], [])
    known, folders = set(wanted), {PurePosixPath(entry.path).parent for entry in wanted}
    others = [
        entry
        for entry in (entries if beside else ())
        if _is_wanted(entry.path, beside) and entry not in known and not folders.isdisjoint(PurePosixPath(entry.path).parents)
    ]
    copied = copy_objects(wanted + others, base, storage=storage, cache=cache)
    return Found(*([_remote_file(base, copied, entry, root) for entry in some] for some in (wanted, others)))


def _remote_file(base: str, folder: Path, entry: Entry, root: str) -> File:
    name = f"{base}/{entry.path}"
    return File(folder / entry.path, name, (name, entry.size, 0), entry.path.removeprefix(root))


def _base(uri: str) -> str:
    """The longest folder of a remote URI without a wildcard, and never the last part, which may be a file."""
    scheme, _, path = uri.partition("://")
    bucket, *parts = path.rstrip("/").split("/")
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), max(len(parts) - 1, 0))
    return f"{scheme}://" + "/".join([bucket, *parts[:fixed]])


def _is_wanted(relative: str, suffixes: Sequence[str]) -> bool:
    return not _is_hidden(relative) and relative.lower().endswith(tuple(suffixes))


def _is_hidden(relative: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(relative).parts)


def _why_nothing(uri: str, suffixes: Sequence[str], field: str) -> str:
    if glob.has_magic(uri):
        return "matches no file: correct the pattern (* stays within a folder, ** does not)"
    path = local_path(uri, field)
    if path is not None and path.is_dir():
        return (
            f"holds no file that ends with {', '.join(suffixes)}: correct the address, or set format and name the files with *"
        )
    return "does not exist: correct the address or put the data there"
