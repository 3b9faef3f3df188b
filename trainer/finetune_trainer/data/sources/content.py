"""Digests of the contents of files, computed once for each state of a file."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from finetune_trainer.protocol import heartbeat
from finetune_trainer.storage.locking import exclusive

_CHUNK_BYTES = 16 << 20


class FileDigests:
    """SHA-256 of local files by path.

    A digest is kept in a file below `cache` and computed again when the file's size, its time of modification or of change, or
    its inode is another. The time of change cannot be set by a program, so that even a replacement of the same size with a
    copied time of modification is noticed.
    """

    def __init__(self, cache: Path) -> None:
        self._store = cache / "digests.json"
        self._known: dict[str, list[int | str]] = self._load()
        self._new: dict[str, list[int | str]] = {}

    def __call__(self, path: Path) -> str:
        """The digest of one file, hexadecimal; raises OSError if it cannot be read."""
        status = path.stat()
        key = path.absolute().as_posix()
        state: list[int | str] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        known = self._known.get(key, [])
        if known[:-1] == state:
            return str(known[-1])
        digest = self._compute(path)
        self._known[key] = self._new[key] = [*state, digest]
        return digest

    def save(self) -> None:
        """Keep the new digests for later runs."""
        if not self._new:
            return
        with exclusive(self._store):
            temporary = self._store.with_suffix(".tmp")
            temporary.write_text(json.dumps(self._load() | self._new))
            temporary.replace(self._store)
        self._new = {}

    def _load(self) -> dict[str, list[int | str]]:
        with suppress(OSError, ValueError):
            content = json.loads(self._store.read_text())
            if isinstance(content, dict):
                return content
        return {}

    def _compute(self, path: Path) -> str:
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                heartbeat.beat()
        return digest.hexdigest()
