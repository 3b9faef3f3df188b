"""s3://BUCKET/PATH: Amazon S3 and servers with its interface."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.store import S3Store

from finetune_trainer.config import storage_schemes
from finetune_trainer.protocol.outcome import ConfigurationError, StorageError, TrainerError
from finetune_trainer.storage.backend import Backend, LocalizeRequest
from finetune_trainer.storage.base import Credentials, Storage, credentials_field
from finetune_trainer.storage.copying import copy_matching_objects

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

# Small requests must fail within half a minute; a large transfer may take long as long as bytes keep coming.
_SMALL: ClientConfig = {"connect_timeout": "4s", "timeout": "8s"}
_LARGE: ClientConfig = {"connect_timeout": "4s", "read_timeout": "20s", "timeout": "12h"}
# The answer to an upload comes after its last byte: four parts of 8 MiB at once may take this long, which is 100 kB/s.
_UPLOAD: ClientConfig = {"connect_timeout": "4s", "read_timeout": "320s", "timeout": "12h"}
_RETRY: RetryConfig = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=15),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=2), "base": 2},
}


class S3Storage(Storage):
    """Objects below s3://BUCKET/PATH."""

    availability_remedy = "that the storage is up and its endpoint is right"

    def probe_writable(self) -> None:
        """As the base class, after a request that fails with NoSuchBucket if the bucket does not exist.

        Some servers answer a write to a missing bucket with "access denied", which would blame the credentials.
        """
        with self._explain_errors("write", ""):
            next(iter(obstore.list(self._small, self._key(""), chunk_size=1)), None)
        super().probe_writable()

    def put_if_unchanged(self, path: str, content: bytes, version: str | None) -> bool:
        """As the base class. Without conditional writes, which some servers lack, the version is compared just before."""
        try:
            return super().put_if_unchanged(path, content, version)
        except StorageError as error:
            if "NotImplemented" not in str(error):
                raise
        found = self.get_versioned(path)
        if (found.version if found else None) != version:
            return False
        self.put(path, content)
        return True

    def explain_code(self, code: str, uri: str) -> TrainerError | None:
        """The error for a bucket that does not exist."""
        if code != "NoSuchBucket":
            return None
        bucket = urlsplit(uri).netloc
        return ConfigurationError(f"{self._field}: the bucket {bucket} of {uri} does not exist: create it, or correct the URI")


class S3Backend(Backend):
    """Opens S3 by the credentials of a Secret or of the environment; copies files below the cache."""

    def open(self, uri: str, credentials: Credentials, secret: str | None, field: str) -> Storage:
        """The storage at `uri`; raises ConfigurationError for a missing bucket name or Secret and for a bad endpoint."""
        keys = credentials.read_for(secret, field)
        small, large, upload = (_store(uri, field, keys, client) for client in (_SMALL, _LARGE, _UPLOAD))
        return S3Storage(uri, field, small, large, upload=upload)

    def local_path(self, uri: str, field: str) -> Path | None:
        """None: S3 objects are never plain files."""
        return None

    def localize(self, request: LocalizeRequest) -> Path:
        """The folder below the cache with copies of the objects that match the request's patterns."""
        storage = self.open(request.uri, request.credentials, request.secret, request.field)
        return copy_matching_objects(storage, request)


def _store(uri: str, field: str, keys: Mapping[str, str], client: ClientConfig) -> S3Store:
    parts = urlsplit(uri)
    if not parts.netloc:
        raise ConfigurationError(f"{field}: {uri} has no bucket: write {storage_schemes.S3.form}")
    endpoint = keys.get("AWS_ENDPOINT_URL_S3") or keys.get("AWS_ENDPOINT_URL")
    if endpoint and not re.match(r"https?://[^/]", endpoint):
        raise ConfigurationError(
            f"{credentials_field(field)}: AWS_ENDPOINT_URL is {endpoint}: begin it with http:// or https://"
        )
    options = {
        "access_key_id": keys.get("AWS_ACCESS_KEY_ID"),
        "secret_access_key": keys.get("AWS_SECRET_ACCESS_KEY"),
        "session_token": keys.get("AWS_SESSION_TOKEN"),
        "region": keys.get("AWS_REGION") or keys.get("AWS_DEFAULT_REGION") or "us-east-1",
        "endpoint": endpoint,
    }
    return S3Store(
        parts.netloc,
        prefix=parts.path.strip("/") or None,
        config={name: value for name, value in options.items() if value},  # type: ignore[arg-type]  # keys of a TypedDict
        # Self-hosted servers seldom resolve BUCKET.HOST.
        virtual_hosted_style_request=endpoint is None,
        client_options={**client, "allow_http": bool(endpoint and endpoint.startswith("http://"))},
        retry_config=_RETRY,
    )


BACKEND = S3Backend()
