"""Which files an address of the data means: one file, a folder, or a pattern with * and **."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fsspec.utils import glob_translate  # type: ignore[import-untyped]  # ships no type information

from finetune_trainer.outcome import DataError
from finetune_trainer.sources import copy_entries, local_path
from finetune_trainer.storage import Credentials, Entry, Storage


@dataclass(frozen=True)
class File:
    """One file of data: where it lies, the name that errors give it, and what changes when its content does."""

    path: Path
    name: str
    identity: tuple[str, int, int]


def find(
    uri: str, *, suffixes: Sequence[str], field: str, cache: Path, credentials: Credentials, secret: str | None
) -> list[File]:
    """The files that `uri` means, in the order of their names; remote ones are copied below the cache.

    Of a folder, those whose name ends with one of `suffixes`; a file or a pattern is taken at its word. Raises DataError,
    beginning with `field`, when there is none.
    """
    if uri.startswith("s3://"):
        files = _find_remote(uri, suffixes, Storage.open(_base(uri), credentials, secret, field), cache)
    else:
        files = _find_local(uri, suffixes, local_path(uri, field))
    if not files:
        raise DataError(f"{field}: {uri} {_why_nothing(uri, suffixes, field)}")
    return files


def _find_local(uri: str, suffixes: Sequence[str], path: Path) -> list[File]:
    if glob.has_magic(path.as_posix()):
        paths = [Path(found) for found in glob.glob(path.as_posix(), recursive=True)]  # noqa: PTH207  # Path.glob takes no absolute patterns
    elif path.is_dir():
        paths = [found for found in path.rglob("*") if _is_wanted(found.relative_to(path).as_posix(), suffixes)]
    else:
        paths = [path]
    files = sorted(found for found in paths if found.is_file())
    stats = [found.stat() for found in files]
    return [File(f, f.as_posix(), (f.as_posix(), s.st_size, s.st_mtime_ns)) for f, s in zip(files, stats, strict=True)]


def _find_remote(uri: str, suffixes: Sequence[str], storage: Storage, cache: Path) -> list[File]:
    base = storage.uri
    rest = uri.removeprefix(base).strip("/")
    if glob.has_magic(rest):
        pattern = re.compile(glob_translate(rest))
        wanted = [entry for entry in storage.list() if pattern.fullmatch(entry.path) and not _is_hidden(entry.path)]
    else:
        folder = f"{rest}/" if rest else ""
        below = [entry for entry in storage.list() if entry.path == rest or entry.path.startswith(folder)]
        wanted = [entry for entry in below if entry.path == rest or _is_wanted(entry.path.removeprefix(folder), suffixes)]
    if not wanted:
        return []
    copied = copy_entries(wanted, base, storage=storage, cache=cache)
    return [_remote_file(base, copied, entry) for entry in wanted]


def _remote_file(base: str, folder: Path, entry: Entry) -> File:
    name = f"{base}/{entry.path}"
    return File(folder / entry.path, name, (name, entry.size, 0))


def _base(uri: str) -> str:
    """The longest folder of an s3:// address without a wildcard, and never the last part, which may be a file."""
    bucket, *parts = uri.removeprefix("s3://").rstrip("/").split("/")
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), max(len(parts) - 1, 0))
    return "s3://" + "/".join([bucket, *parts[:fixed]])


def _is_wanted(relative: str, suffixes: Sequence[str]) -> bool:
    return not _is_hidden(relative) and relative.lower().endswith(tuple(suffixes))


def _is_hidden(relative: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(relative).parts)


def _why_nothing(uri: str, suffixes: Sequence[str], field: str) -> str:
    if glob.has_magic(uri):
        return "matches no file: correct the pattern (* stays within a folder, ** does not)"
    if not uri.startswith("s3://") and local_path(uri, field).is_dir():
        return (
            f"holds no file that ends with {', '.join(suffixes)}: correct the address, or set format and name the files with *"
        )
    return "does not exist: correct the address or put the data there"
