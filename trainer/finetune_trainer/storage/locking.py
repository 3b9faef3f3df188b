"""Work that several processes of a machine need and one does: under a lock, with a result that appears only when complete."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from finetune_trainer.protocol import heartbeat

_WAIT_SECONDS = 1.0


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file of `path`.

    Each heartbeat of the process that holds it touches the file, and counts as a heartbeat of those that wait for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pulse = Path(f"{path}.pulse")  # not the lock file itself, which the library opens, truncates and may delete
    lock = filelock.FileLock(f"{path}.lock")
    _acquire(lock, pulse)
    try:
        with heartbeat.relayed_to(lambda: _touch(pulse)):
            yield
    finally:
        pulse.unlink(missing_ok=True)
        lock.release()


def _acquire(lock: filelock.FileLock, pulse: Path) -> None:
    seen = _modification_time(pulse)
    while True:
        try:
            lock.acquire(timeout=_WAIT_SECONDS)
            return
        except filelock.Timeout:
            touched = _modification_time(pulse)
            if touched != seen:
                seen = touched
                heartbeat.beat()


def _touch(path: Path) -> None:
    with suppress(OSError):  # a full disk is reported by the work itself
        path.touch()


def _modification_time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


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
