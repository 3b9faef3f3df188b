"""The storage interface: objects below one URI, read and written the same way for every scheme.

Every error is one sentence that names the field of the document and the URI. A user's mistake (a bucket that does not exist,
rejected credentials) is a `ConfigurationError`; a storage that does not answer is a `StorageError`.
"""

from __future__ import annotations

import contextlib
import copy
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import ObjectStore

from finetune_trainer.config.storage_schemes import credential_keys
from finetune_trainer.protocol import heartbeat
from finetune_trainer.protocol.outcome import ConfigurationError, StorageError, TrainerError

TRANSFERS = 4  # simultaneous transfers; more would compete with training for cores
_SMALL_BYTES = 1 << 20
_PART_BYTES = 8 << 20
_MAX_PARTS = 9_000  # S3 allows 10,000 parts per object


@dataclass(frozen=True)
class Credentials:
    """Secrets by name: one directory per Secret and one file per key, as Kubernetes mounts them."""

    directory: Path | None = None

    def read_for(self, secret: str | None, uri_field: str) -> Mapping[str, str]:
        """The keys and values of the Secret for the URI in `uri_field`.

        Without a name or a directory of Secrets, those of the environment. Raises ConfigurationError, naming the field
        `credentials` of the same section, when the Secret is not mounted, and StorageError when it has none of the keys:
        Kubernetes mounts a Secret that does not exist yet as an empty directory.
        """
        if secret is None or self.directory is None:
            return {key: os.environ[key] for key in credential_keys() if os.environ.get(key)}
        folder = self.directory / secret
        if not folder.is_dir():
            raise ConfigurationError(
                f"{credentials_field(uri_field)}: Secret {secret} does not exist: create it in the job's namespace, or correct "
                "the name"
            )
        values = {file.name: file.read_text().rstrip("\r\n") for file in folder.iterdir() if file.is_file()}
        if not values:
            raise StorageError(
                f"{credentials_field(uri_field)}: Secret {secret} does not exist, or has none of the keys "
                f"{', '.join(credential_keys())}: create it in the job's namespace, or correct the name"
            )
        return values


def credentials_field(uri_field: str) -> str:
    """The field that names the Secret for the URI in `uri_field`."""
    return f"{uri_field.rpartition('.')[0]}.credentials"


@dataclass(frozen=True, order=True)
class Entry:
    """One stored object; `path` is relative to the storage that listed it, `size` is in bytes.

    `version` changes with the content, as far as the storage can tell.
    """

    path: str
    size: int
    version: str = field(default="", compare=False)


class VersionedObject(NamedTuple):
    """The content of an object, and the version that a conditional write compares."""

    content: bytes
    version: str


class Storage:
    """Objects below one URI, by obstore. Open one with `registry.open_storage`; each scheme that needs more subclasses it."""

    availability_remedy: ClassVar[str]
    """The end of the message for a storage that does not answer, after "check"."""

    def __init__(
        self, uri: str, field: str, small: ObjectStore, large: ObjectStore, *, upload: ObjectStore | None = None,
        key_prefix: str = "",
    ) -> None:  # fmt: skip
        """`small`, `large` and `upload` are one store with the time-outs of short requests, of long transfers, and of long
        uploads, if those differ; `key_prefix` is the path of `uri` within that store."""
        self._root = uri.rstrip("/")
        self._field = field
        self._small = small
        self._large = large
        self._upload = upload or large
        self._key_prefix = key_prefix
        self._path = ""

    @property
    def uri(self) -> str:
        """The URI, as the document has it."""
        return _join(self._root, self._path)

    @property
    def folder(self) -> Path | None:
        """The folder that holds the objects as plain files; None for an object storage."""
        return None

    def child(self, path: str) -> Self:
        """The storage below `path`."""
        child = copy.copy(self)
        child._path = _join(self._path, path.strip("/"))
        return child

    def put(self, path: str, content: bytes | Path) -> None:
        """Write or replace an object, atomically; large files are sent in parts, four at once."""
        with self._explain_errors("write", path):
            if isinstance(content, bytes):
                store = self._small if len(content) <= _SMALL_BYTES else self._large
                obstore.put(store, self._key(path), content, use_multipart=False)
                return
            size = content.stat().st_size
            part = max(_PART_BYTES, -(-size // _MAX_PARTS))
            source = content if size <= part else _read_parts(content, part)
            store = self._large if size <= _SMALL_BYTES else self._upload
            obstore.put(store, self._key(path), source, chunk_size=part, max_concurrency=TRANSFERS)

    def put_if_absent(self, path: str, content: bytes) -> bool:
        """Write an object unless it exists; True if this call wrote it. Of several concurrent writers exactly one wins."""
        with self._explain_errors("write", path):
            try:
                obstore.put(self._small, self._key(path), content, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def get_versioned(self, path: str) -> VersionedObject | None:
        """One small object with its version; None if it does not exist."""
        with self._explain_errors("read", path):
            try:
                result = obstore.get(self._small, self._key(path))
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None
            return VersionedObject(bytes(result.bytes()), result.meta["e_tag"] or "")

    def put_if_unchanged(self, path: str, content: bytes, version: str | None) -> bool:
        """Write a small object if it still has this version, or, for None, does not exist; True if this call wrote it."""
        if version is None:
            return self.put_if_absent(path, content)
        with self._explain_errors("write", path):
            try:
                obstore.put(self._small, self._key(path), content, mode={"e_tag": version}, use_multipart=False)
            except (FileNotFoundError, PreconditionError):
                return False
        return True

    def get(self, path: str) -> bytes:
        """The content of one object; raises StorageError when it does not exist."""
        with self._explain_errors("read", path):
            return bytes(obstore.get(self._large, self._key(path)).bytes())

    def exists(self, path: str) -> bool:
        """Whether the object exists."""
        with self._explain_errors("read", path):
            try:
                obstore.head(self._small, self._key(path))
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return False
        return True

    def download(self, path: str, target: Path) -> None:
        """Copy one object to the file `target`, which appears only when it is complete."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.partial")
        try:
            with self._explain_errors("read", path), temporary.open("wb") as file:
                for chunk in obstore.get(self._large, self._key(path)).stream(min_chunk_size=_PART_BYTES):
                    file.write(memoryview(chunk))
                    heartbeat.beat()
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def download_folder(self, target: Path) -> list[Path]:
        """Copy every object to its path below `target`; returns the written files in the order of their names."""
        entries = self.list()
        with ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(lambda entry: self.download(entry.path, target / entry.path), entries))
        return [target / entry.path for entry in entries]

    def upload_folder(self, folder: Path) -> list[Entry]:
        """Write every file below `folder` to its relative path; returns the objects in the order of their names."""
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        entries = [Entry(file.relative_to(folder).as_posix(), file.stat().st_size) for file in files]
        with ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(lambda entry: self.put(entry.path, folder / entry.path), entries))
        return entries

    def delete(self, path: str) -> None:
        """Delete one object; does nothing if it does not exist."""
        with self._explain_errors("delete", path), contextlib.suppress(FileNotFoundError):
            self._delete(path)

    def probe_writable(self) -> None:
        """Write and delete a small object, so that a mistake shows before the first step instead of after hours."""
        key = self._key(f".finetune-probe-{uuid.uuid4().hex}")
        with self._explain_errors("write", ""):
            obstore.put(self._small, key, b"", use_multipart=False)
            obstore.delete(self._small, key)

    def list(self, prefix: str = "") -> list[Entry]:
        """All objects below `prefix`, sorted. `prefix` is a folder's whole name, not the beginning of a name."""
        root = self._key("")
        root_length = len(root) + 1 if root else 0
        entries = []
        with self._explain_errors("list", prefix):
            for batch in obstore.list(self._small, self._key(prefix)):
                for meta in batch:
                    entries.append(Entry(meta["path"][root_length:], meta["size"], meta["e_tag"] or ""))
        return sorted(entries)

    def denied_remedy(self) -> str:
        """The end of the message for a refused request, after "correct"."""
        return credentials_field(self._field)

    def explain_code(self, code: str, uri: str) -> TrainerError | None:
        """The error for a scheme's own error code; None for codes that need no text of their own."""
        return None

    def _delete(self, path: str) -> None:
        obstore.delete(self._small, self._key(path))

    def _key(self, path: str) -> str:
        return _join(self._key_prefix, self._path, path.strip("/"))

    @contextlib.contextmanager
    def _explain_errors(self, verb: str, path: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            raise self._explain(error, verb, _join(self.uri, path)) from error

    def _explain(self, error: Exception, verb: str, uri: str) -> TrainerError:
        text = str(error)
        match = re.search(r"<Code>(\w+)</Code>", text)
        code = match[1] if match else ""
        if explained := self.explain_code(code, uri):
            return explained
        if _is_denied(error):
            return ConfigurationError(
                f"{self._field}: may not {verb} {uri} ({code or 'access denied'}): correct {self.denied_remedy()}, or the URI"
            )
        if isinstance(error, FileNotFoundError):
            return StorageError(f"{self._field}: there is nothing at {uri}: it was deleted, or the URI is wrong")
        if "os error 28" in text:
            return StorageError(f"{self._field}: no space left to {verb} {uri}: make room, or keep fewer checkpoints")
        cause = re.search(r"kind: (\w+)|status: (\d+)", text)
        detail = code or (cause and (cause[1] or cause[2])) or text.split("\n", 1)[0][:200]
        return StorageError(f"{self._field}: could not {verb} {uri} ({detail}): check {self.availability_remedy}")


def _read_parts(file: Path, size: int) -> Iterator[bytes]:
    """The content of the file in parts of `size` bytes; a part is read when an earlier one was sent."""
    with file.open("rb") as content:
        while part := content.read(size):
            heartbeat.beat()
            yield part


def _is_denied(error: Exception) -> bool:
    if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
        return True
    return re.search(r"\b40[13] |os error 13", str(error)) is not None


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)
