"""Files of a checkpoint on a local disk: written and hashed in one pass, verified, and loaded."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch.utils.serialization import config as serialization

from finetune_trainer.checkpoint.manifest import File
from finetune_trainer.protocol import heartbeat

_CHUNK_BYTES = 4 << 20
_FLUSH_BYTES = 64 << 20  # how much may be in the page cache and not on the disk


def write(content: Any, path: Path, rank: int, *, read_soon: bool) -> File:
    """Store `content` with torch.save; the file appears when it is complete and flushed to the disk.

    It is flushed piece by piece: to write back a whole checkpoint at the end, or to find memory for it in the page cache, would
    slow training down. Unless the file is to be `read_soon`, its pages are dropped from the cache.

    Raises OSError when the disk is full or fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.partial")
    try:
        with temporary.open("wb", buffering=0) as file:
            hashing = _HashingFile(file, read_soon)
            # Nothing reads the CRC-32 of the archive: the SHA-256 covers the whole file.
            with cast(Any, serialization).patch({"save.compute_crc32": False}):
                try:
                    torch.save(content, cast(IO[bytes], hashing))
                except RuntimeError as error:  # torch.save hides the cause of a failed write
                    if hashing.error is None:
                        raise
                    raise hashing.error from error
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return File(name=path.name, size=hashing.size, sha256=hashing.hexdigest(), rank=rank)


def is_intact(path: Path, file: File) -> bool:
    """Whether the file at `path` has the size and the hash in the manifest."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
            heartbeat.beat()
    return digest.hexdigest() == file.sha256


def load(path: Path) -> Any:
    """The content of a checkpoint file, on the CPU; runs no code of the file."""
    with heartbeat.while_busy():
        return torch.load(path, map_location="cpu", weights_only=True)


class _HashingFile(io.RawIOBase):
    """Hashes the bytes written to a file. Hashing and writing both release the GIL, so that training continues meanwhile."""

    def __init__(self, file: io.FileIO, read_soon: bool) -> None:
        self.size = 0
        self.error: OSError | None = None
        """The error of a write."""
        self._file = file
        self._read_soon = read_soon
        self._unflushed = 0
        self._digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _CHUNK_BYTES):
            self._write_all(view[start : start + _CHUNK_BYTES])
        self.size += len(view)
        return len(view)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def _write_all(self, chunk: memoryview) -> None:
        self._digest.update(chunk)
        self._unflushed += len(chunk)
        try:
            while chunk:
                chunk = chunk[self._file.write(chunk) :]
        except OSError as error:
            self.error = error
            raise
        heartbeat.beat()
        if self._unflushed >= _FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._unflushed = 0
        if sys.platform == "linux":
            os.fdatasync(self._file.fileno())
            if not self._read_soon:
                os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
