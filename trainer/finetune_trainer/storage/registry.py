"""The implementation of each URI scheme, imported when a URI of the scheme is first used."""

from __future__ import annotations

from importlib import import_module

from finetune_trainer.config.storage_schemes import WRITABLE_SCHEMES, StorageScheme, scheme_of
from finetune_trainer.storage.backend import Backend, unsupported_scheme
from finetune_trainer.storage.base import Credentials, Storage


def find_backend(uri: str, field: str, schemes: tuple[StorageScheme, ...]) -> Backend:
    """The backend of the scheme of `uri`; raises ConfigurationError, naming `schemes`, for one that is not in the table."""
    scheme = scheme_of(uri)
    if scheme is None:
        raise unsupported_scheme(uri, field, schemes)
    backend: Backend = import_module(f"finetune_trainer.storage.{scheme.module}").BACKEND
    return backend


def open_storage(
    uri: str, credentials: Credentials, secret: str | None = None, field: str = "spec.checkpoint.storage"
) -> Storage:
    """The storage at `uri`; sends no request yet. Errors name `field`, the field of the document that holds the URI.

    Raises ConfigurationError for an invalid URI or a Secret that does not exist.
    """
    return find_backend(uri, field, WRITABLE_SCHEMES).open(uri, credentials, secret, field)
