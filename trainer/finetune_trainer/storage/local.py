"""file:///PATH: a folder of this machine, whose files are used in place."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from obstore.store import LocalStore

from finetune_trainer.config import storage_schemes
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.backend import Backend, LocalizeRequest
from finetune_trainer.storage.base import Credentials, Entry, Storage, VersionedObject

_LOCK_SECONDS = 5.0


class LocalStorage(Storage):
    """Objects as plain files below `root`."""

    availability_remedy = "that the folder can be used"

    def __init__(self, uri: str, field: str, root: Path) -> None:
        # The store's root is that of the file system: LocalStore creates its root, but opening a folder must not create it.
        store = LocalStore("/")
        super().__init__(uri, field, store, store, key_prefix=str(root).strip("/"))
        self._root_folder = root

    @property
    def folder(self) -> Path:
        """The folder that holds the objects."""
        return self._root_folder / self._path

    def list(self, prefix: str = "") -> list[Entry]:
        """As the base class; a folder that does not exist is empty."""
        with self._explain_errors("list", prefix):
            if not (self.folder / prefix.strip("/")).is_dir():
                return []
        return super().list(prefix)

    def get_versioned(self, path: str) -> VersionedObject | None:
        """As the base class; an empty file counts as absent."""
        with self._explain_errors("read", path):
            try:
                with (self.folder / path).open("rb") as file, _locked(file, fcntl.LOCK_SH):
                    content = file.read()
            except FileNotFoundError:
                return None
        return VersionedObject(content, _version_of(content)) if content else None

    def put_if_unchanged(self, path: str, content: bytes, version: str | None) -> bool:
        """As the base class. The file is written in place under a lock, because a file system has no conditional write."""
        target = self.folder / path
        with self._explain_errors("write", path):
            target.parent.mkdir(parents=True, exist_ok=True)
            while True:
                descriptor = os.open(target, os.O_RDWR | os.O_CREAT, 0o644)
                with os.fdopen(descriptor, "r+b") as file, _locked(file, fcntl.LOCK_EX):
                    if os.fstat(descriptor).st_nlink == 0:  # another process has deleted it since it was opened
                        continue
                    found = file.read()
                    if (_version_of(found) if found else None) != version:
                        return False
                    file.seek(0)
                    file.truncate()
                    file.write(content)
                    file.flush()
                    os.fsync(descriptor)
                    return True

    def _delete(self, path: str) -> None:
        super()._delete(path)
        # Folders that became empty are deleted too: an object storage has none.
        for parent in (self.folder / path.strip("/")).parents:
            if parent == self._root_folder or self._root_folder not in parent.parents:
                break
            with contextlib.suppress(OSError):
                parent.rmdir()

    def denied_remedy(self) -> str:
        """The end of the message for a refused access."""
        return "the folder's owner and mode"


def _version_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def _locked(file: BinaryIO, kind: int) -> Iterator[None]:
    """Hold a lock on the file until it is closed; works without one on a file system that has no locks."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        except OSError:
            break
        else:
            break
    yield


class FolderBackend(Backend):
    """Opens folders of this machine; relative paths are below the working directory."""

    def open(self, uri: str, credentials: Credentials, secret: str | None, field: str) -> Storage:
        """The folder at `uri`, which need not exist."""
        return LocalStorage(uri, field, self.local_path(uri, field).absolute())

    def local_path(self, uri: str, field: str) -> Path:
        """The path in `uri`."""
        return Path(storage_schemes.FILE.path(uri))

    def localize(self, request: LocalizeRequest) -> Path:
        """The file or folder in place; raises ConfigurationError if it does not exist."""
        path = self.local_path(request.uri, request.field)
        if not path.exists():
            raise ConfigurationError(
                f"{request.field}: {request.uri} does not exist ({path.absolute()}): correct the path, or create it"
            )
        return path


BACKEND = FolderBackend()
