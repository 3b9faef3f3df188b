"""Copies of remote objects below the cache: made once per machine, under a lock, and visible only when complete."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import logging
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.backend import LocalizeRequest
from finetune_trainer.storage.base import TRANSFERS, Entry, Storage
from finetune_trainer.storage.locking import exclusive, write_folder_atomically

log = logging.getLogger(__name__)


def copy_matching_objects(storage: Storage, request: LocalizeRequest) -> Path:
    """The folder below the cache with the objects of `storage` that match the request's patterns.

    Raises ConfigurationError when no object matches.
    """
    entries = storage.list()
    matching = [entry for entry in entries if _matches(entry, request.patterns)]
    if not matching:
        reason = "it is empty"
        if entries and request.patterns:
            reason = f"none of its {len(entries)} files matches {', '.join(request.patterns)}"
        raise ConfigurationError(
            f"{request.field}: there is nothing to use at {request.uri} ({reason}): correct the URI, or upload the files"
        )
    return copy_objects(matching, request.uri, storage=storage, cache=request.cache)


def copy_objects(entries: Collection[Entry], uri: str, *, storage: Storage, cache: Path) -> Path:
    """The folder below the cache with copies of these objects of `storage`.

    The folder's name is a hash of the URI and of the objects' names, sizes and versions, so that changed data is copied again.
    """
    identity = json.dumps([uri, [[entry.path, entry.size, entry.version] for entry in sorted(entries)]])
    folder = cache / "sources" / hashlib.sha256(identity.encode()).hexdigest()[:32]
    with exclusive(folder):
        if not folder.exists():
            log.info("copying %d files, %.1f MB, from %s", len(entries), sum(entry.size for entry in entries) / 1e6, uri)
            with write_folder_atomically(folder) as temporary, ThreadPoolExecutor(TRANSFERS) as pool:
                list(pool.map(lambda entry: storage.download(entry.path, temporary / entry.path), entries))
    return folder


def _matches(entry: Entry, patterns: Sequence[str] | None) -> bool:
    return patterns is None or any(fnmatch.fnmatch(entry.path, pattern) for pattern in patterns)
