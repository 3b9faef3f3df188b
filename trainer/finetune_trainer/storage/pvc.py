"""pvc://CLAIM/PATH: a folder of a PersistentVolumeClaim that the operator mounted into this pod."""

from __future__ import annotations

from pathlib import Path

from finetune_trainer.config import storage_schemes
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.base import Credentials, Storage
from finetune_trainer.storage.local import FolderBackend

_CLAIMS = Path(storage_schemes.CLAIMS_DIR)


class ClaimBackend(FolderBackend):
    """Opens folders of mounted claims."""

    def open(self, uri: str, credentials: Credentials, secret: str | None, field: str) -> Storage:
        """The folder at `uri`, which need not exist; raises ConfigurationError if its claim is not mounted."""
        claim = storage_schemes.PVC.path(uri).partition("/")[0]
        if not (_CLAIMS / claim).is_dir():
            raise ConfigurationError(f"{field}: the claim of {uri} is not mounted here: correct its name, or use file://")
        return super().open(uri, credentials, secret, field)

    def local_path(self, uri: str, field: str) -> Path:
        """The path in the mounted claim."""
        return _CLAIMS / storage_schemes.PVC.path(uri)


BACKEND = ClaimBackend()
