"""Work that several processes of a machine need and one does: under a lock, with a result that appears only when complete."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

_HEARTBEAT_SECONDS = 5


@contextmanager
def exclusive(path: Path, heartbeat: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock file of `path`; while it waits for the lock it calls `heartbeat` every five seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(f"{path}.lock")
    while True:
        try:
            lock.acquire(timeout=_HEARTBEAT_SECONDS)
            break
        except filelock.Timeout:
            heartbeat()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def write_folder_atomically(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill, renamed to `folder` at the end and deleted after an error. Hold the lock of `folder`."""
    for leftover in folder.parent.glob(f"{folder.name}.tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
    try:
        yield temporary
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
