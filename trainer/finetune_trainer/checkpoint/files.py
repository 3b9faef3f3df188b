"""Files of a checkpoint on a local disk: written with their hash in one pass, and compared with it."""

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

_CHUNK_BYTES = 4 << 20
_FLUSH_BYTES = 64 << 20  # what may wait in memory for the disk


def write(content: Any, path: Path, rank: int, *, read_soon: bool) -> File:
    """Stores `content` with torch.save; the file appears when it is complete and on the disk.

    It goes to the disk piece by piece: a checkpoint's worth of pages to write back at the end would slow the training down, as
    would finding memory for them. Unless it is to be `read_soon`, no page of it stays in memory.

    Raises OSError when the disk is full or fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.partial")
    try:
        with temporary.open("wb", buffering=0) as file:
            hashing = _Hashing(file, read_soon)
            # The archive's own checksums would be computed on top of the SHA-256 and read by nobody.
            with cast(Any, serialization).patch({"save.compute_crc32": False}):
                torch.save(content, cast(IO[bytes], hashing))
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return File(name=path.name, size=hashing.size, sha256=hashing.hexdigest(), rank=rank)


def is_intact(path: Path, file: File) -> bool:
    """Whether the file at `path` has the size and the hash that the manifest names."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest() == file.sha256


class _Hashing(io.RawIOBase):
    """Hashes what passes through to a file. Both the hash and the write leave Python's lock to the training meanwhile."""

    def __init__(self, file: io.FileIO, read_soon: bool) -> None:
        self.size = 0
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
        while chunk:
            chunk = chunk[self._file.write(chunk) :]
        if self._unflushed >= _FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._unflushed = 0
        if sys.platform == "linux":
            os.fdatasync(self._file.fileno())
            if not self._read_soon:
                os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
