"""Work that several processes of a machine need and one does: under a lock, and seen by the others only when it is complete."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock


@contextmanager
def exclusive(path: Path, alive: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock beside `path`; whoever waits for it says all few seconds that it is alive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(f"{path}.lock")
    while True:
        try:
            lock.acquire(timeout=5)
            break
        except filelock.Timeout:
            alive()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the name `folder` when it is complete and vanishes otherwise; needs the lock."""
    for left_behind in folder.parent.glob(f"{folder.name}.tmp-*"):
        shutil.rmtree(left_behind, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
    try:
        yield temporary
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
