"""file:///PATH: a folder of this machine, whose files are used in place."""

from __future__ import annotations

import contextlib
from pathlib import Path

from obstore.store import LocalStore

from finetune_trainer.config import storage_schemes
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.base import Backend, Credentials, Entry, LocalizeRequest, Storage


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
