"""The files that a source address matches: one file, a folder, or a pattern with * and **."""

from __future__ import annotations

import glob
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fsspec.utils import glob_translate  # type: ignore[import-untyped]  # ships no type information

from finetune_trainer.data.sources.names import uncompressed_name
from finetune_trainer.protocol.outcome import DataError
from finetune_trainer.storage.base import Credentials, Entry, Storage
from finetune_trainer.storage.copying import copy_objects
from finetune_trainer.storage.download import local_path
from finetune_trainer.storage.registry import open_storage

MAX_LISTED_SUFFIXES = 12


@dataclass(frozen=True)
class File:
    """One local data file. `name` is its address in error messages; `identity` changes when its content changes."""

    path: Path
    name: str
    identity: tuple[str | int, ...]
    relative_path: str
    """The path below the folder that the address names, or that contains the address's one file."""


class MatchingFiles(NamedTuple):
    """The data files that an address matches, and the files that their rows may refer to."""

    files: list[File]
    attachments: list[File]
    others: Sequence[str] = ()
    """The paths of the other files of a folder, sorted; hidden ones are left out."""


def find_files(
    uri: str, *, suffixes: Sequence[str], attachment_suffixes: Sequence[str] = (), field: str, cache: Path,
    credentials: Credentials, secret: str | None,
) -> MatchingFiles:  # fmt: skip
    """The files that `uri` matches, sorted by path; remote files are copied into the cache.

    In a folder these are the files whose names end with one of `suffixes`; a single file or a pattern is taken as given.
    Attachments end with one of `attachment_suffixes`, in the folders of the data files or below them. Raises DataError,
    beginning with `field`, if no file matches.
    """
    path = local_path(uri, field)
    if path is None:
        storage = open_storage(_fixed_prefix(uri), credentials, secret, field)
        matching = _find_remote(uri, suffixes, attachment_suffixes, storage, cache)
    else:
        matching = _find_local(suffixes, attachment_suffixes, path)
    if not matching.files:
        raise DataError(f"{field}: {uri} {_explain_no_match(uri, suffixes, matching.others, field)}")
    return matching


def files_below(folder: Path) -> list[File]:
    """All files in a folder and its sub-folders, sorted by path."""
    return _local_files(_paths_below(folder, ("",)), folder)


def _find_local(suffixes: Sequence[str], attachment_suffixes: Sequence[str], path: Path) -> MatchingFiles:
    paths: Iterable[Path]
    if glob.has_magic(path.as_posix()):
        root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        paths = map(Path, glob.glob(path.as_posix(), recursive=True))  # noqa: PTH207  # Path.glob takes no absolute patterns
    elif path.is_dir():
        root, paths = path, _paths_below(path, suffixes)
    else:
        root, paths = path.parent, [path]
    files = {path for path in paths if path.is_file()}
    attachments: set[Path] = set()
    if attachment_suffixes:
        for folder in {file.parent for file in files}:
            attachments.update(_paths_below(folder, attachment_suffixes))
    others: set[Path] = set()
    if path.is_dir():
        others = set(_paths_below(path, ("",))) - files - attachments
    names = sorted(other.relative_to(root).as_posix() for other in others)
    return MatchingFiles(_local_files(files, root), _local_files(attachments - files, root), names)


def _paths_below(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if _has_suffix(path.relative_to(folder).as_posix(), suffixes) and path.is_file():
            yield path


def _local_files(paths: Iterable[Path], root: Path) -> list[File]:
    files = []
    for path in sorted(paths):
        status = path.stat()
        # A copy may keep the time of modification; the time of change is the system's own.
        identity = (path.as_posix(), status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        files.append(File(path, path.as_posix(), identity, path.relative_to(root).as_posix()))
    return files


def _find_remote(
    uri: str, suffixes: Sequence[str], attachment_suffixes: Sequence[str], storage: Storage, cache: Path
) -> MatchingFiles:  # fmt: skip
    base = storage.uri
    relative = uri.removeprefix(base).strip("/")
    entries = storage.list()
    if glob.has_magic(relative):
        root = ""
        pattern = re.compile(glob_translate(relative))
        data = [entry for entry in entries if pattern.fullmatch(entry.path) and not _is_hidden(entry.path)]
    else:
        root = f"{relative}/" if relative else ""
        data = [entry for entry in entries if _is_at_or_below(entry.path, relative, root, suffixes)]
    if not data:
        return MatchingFiles([], [])
    attachments = _remote_attachments(entries, data, attachment_suffixes)
    copy = copy_objects(data + attachments, base, storage=storage, cache=cache)
    others = _other_names(entries, {*data, *attachments}, root) if not glob.has_magic(relative) else []
    return MatchingFiles(_remote_files(data, base, copy, root), _remote_files(attachments, base, copy, root), others)


def _other_names(entries: Sequence[Entry], matched: Collection[Entry], root: str) -> list[str]:
    names = []
    for entry in entries:
        if root and entry.path.startswith(root) and entry not in matched and not _is_hidden(entry.path):
            names.append(entry.path.removeprefix(root))
    return sorted(names)


def _is_at_or_below(path: str, relative: str, root: str, suffixes: Sequence[str]) -> bool:
    if path == relative:
        return True
    return path.startswith(root) and _has_suffix(path.removeprefix(root), suffixes)


def _remote_attachments(entries: Sequence[Entry], data: Sequence[Entry], suffixes: Sequence[str]) -> list[Entry]:
    if not suffixes:
        return []
    known, folders = set(data), {PurePosixPath(entry.path).parent for entry in data}
    attachments = []
    for entry in entries:
        is_in_data_folder = not folders.isdisjoint(PurePosixPath(entry.path).parents)
        if is_in_data_folder and entry not in known and _has_suffix(entry.path, suffixes):
            attachments.append(entry)
    return attachments


def _remote_files(entries: Sequence[Entry], base: str, copy: Path, root: str) -> list[File]:
    files = []
    for entry in entries:
        name = f"{base}/{entry.path}"
        files.append(File(copy / entry.path, name, (name, entry.size, entry.version), entry.path.removeprefix(root)))
    return files


def _fixed_prefix(uri: str) -> str:
    """The longest folder of a remote URI before a wildcard; never the last part, which may be a file."""
    scheme, _, path = uri.partition("://")
    bucket, *parts = path.rstrip("/").split("/")
    fixed = list(takewhile(lambda part: not glob.has_magic(part), parts[:-1]))
    return f"{scheme}://" + "/".join([bucket, *fixed])


def _has_suffix(path: str, suffixes: Sequence[str]) -> bool:
    return not _is_hidden(path) and uncompressed_name(path).endswith(tuple(suffixes))


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(path).parts)


def _explain_no_match(uri: str, suffixes: Sequence[str], others: Sequence[str], field: str) -> str:
    if glob.has_magic(uri):
        return "matches no file: correct the pattern (* stays within a folder, ** does not)"
    path = local_path(uri, field)
    if path is not None and path.is_dir():
        listed = ", ".join(suffixes[:MAX_LISTED_SUFFIXES])
        more = f" or one of {len(suffixes) - MAX_LISTED_SUFFIXES} others" if len(suffixes) > MAX_LISTED_SUFFIXES else ""
        found = f" (there is {others[0]})" if others else ""
        return (
            f"holds no file that ends with {listed}{more}{found}: correct the address, or set format and name the files with *"
        )
    return "does not exist: correct the address or put the data there"
