"""The interface of a URI scheme: opens storages, and brings files to this machine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

from finetune_trainer.config.storage_schemes import WRITABLE_SCHEMES, StorageScheme, uri_prefixes
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.base import Credentials, Storage


class LocalizeRequest(NamedTuple):
    """A file or folder to bring to this machine; `patterns` limits which files of a remote folder are copied."""

    uri: str
    field: str
    cache: Path
    credentials: Credentials
    secret: str | None
    patterns: list[str] | None = None
    revision: str | None = None


class Backend(ABC):
    """The implementation of one URI scheme. Its module, which the scheme table names, has an instance of it, `BACKEND`."""

    def open(self, uri: str, credentials: Credentials, secret: str | None, field: str) -> Storage:
        """The storage at `uri`; schemes that hold no objects of ours raise ConfigurationError."""
        raise unsupported_scheme(uri, field, WRITABLE_SCHEMES)

    @abstractmethod
    def local_path(self, uri: str, field: str) -> Path | None:
        """The path of a URI whose files are on this machine already; None if they must be copied."""

    @abstractmethod
    def localize(self, request: LocalizeRequest) -> Path:
        """The path of the file or folder on this machine, copied below the request's cache if necessary.

        Raises ConfigurationError for a URI that does not exist or may not be read, and StorageError for a storage that does
        not answer.
        """


def unsupported_scheme(uri: str, field: str, schemes: tuple[StorageScheme, ...]) -> ConfigurationError:
    """The error for a URI whose scheme is not one of `schemes`."""
    return ConfigurationError(f"{field}: {uri} is not supported: begin the URI with {uri_prefixes(schemes)}")
