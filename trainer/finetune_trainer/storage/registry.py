"""The implementation of each URI scheme, imported when a URI of the scheme is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from finetune_trainer.config.storage_schemes import scheme_of

if TYPE_CHECKING:
    from finetune_trainer.storage.base import Backend


def find_backend(uri: str) -> Backend | None:
    """The backend of the scheme of `uri`; None for a scheme that is not in the table."""
    scheme = scheme_of(uri)
    if scheme is None:
        return None
    backend: Backend = import_module(f"finetune_trainer.storage.{scheme.module}").BACKEND
    return backend
