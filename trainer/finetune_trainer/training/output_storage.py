"""The storage that a run writes to: its checkpoints and its exported model. Imports no torch."""

from __future__ import annotations

from finetune_trainer.config import CheckpointConfig, ExportConfig
from finetune_trainer.storage.base import Credentials, Storage
from finetune_trainer.storage.registry import open_storage


def open_checkpoint_storage(checkpoint: CheckpointConfig, credentials: Credentials) -> Storage:
    """The storage of the checkpoints."""
    return open_storage(checkpoint.storage, credentials, checkpoint.credentials)


def open_model_storage(export: ExportConfig, checkpoint: CheckpointConfig, credentials: Credentials) -> Storage:
    """The storage of the exported model: export.storage, or the folder `model` in checkpoint.storage."""
    secret = export.credentials or checkpoint.credentials
    if export.storage is not None:
        return open_storage(export.storage, credentials, secret, field="spec.export.storage")
    return open_storage(checkpoint.storage, credentials, secret).child("model")


def validate_writable(export: ExportConfig, checkpoint: CheckpointConfig, credentials: Credentials) -> None:
    """Raise ConfigurationError or StorageError unless both storages can be written to."""
    open_checkpoint_storage(checkpoint, credentials).probe_writable()
    open_model_storage(export, checkpoint, credentials).probe_writable()
