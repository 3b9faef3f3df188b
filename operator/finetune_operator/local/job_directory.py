"""The directory with the state of one local run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune_operator.local.errors import LocalRunError

POLL_SECONDS = 0.25


@dataclass(frozen=True)
class JobDirectory:
    """Paths below `.finetune/NAME/`."""

    path: Path

    @property
    def document(self) -> Path:
        """The trainer's document, which a cluster mounts from a ConfigMap."""
        return self.path / "train.json"

    @property
    def cache(self) -> Path:
        """Prepared data, shared by all jobs with the same parent directory."""
        return self.path.parent / "cache"

    @property
    def lock_file(self) -> Path:
        """Locked by the run and all its agents."""
        return self.path / "lock"

    def run_id(self) -> str:
        """Identifies the runs of this directory among all that may use their storage.

        It is kept in a file, since a host's name and the path may change, as in a container. The number of the file's inode is
        part of it, so that a copy of the directory is another run.
        """
        file = self.path / "run-id"
        if not file.exists():
            file.write_text(uuid.uuid4().hex)
        return f"{file.read_text()}-{file.stat().st_ino}"

    def log_file(self, node: int) -> Path:
        """Output of a node's agent and ranks."""
        return self.path / f"node-{node}.log"

    def outcome_file(self, node: int) -> Path:
        """A node's termination message."""
        return self.path / f"node-{node}.outcome.json"

    def work_directory(self, node: int) -> Path:
        """A node's scratch space."""
        return self.path / f"node-{node}"

    @contextlib.contextmanager
    def locked(self, waiting: Callable[[str], None]) -> Iterator[int]:
        """Hold the lock, so that a job has one run at a time; yields the lock's file descriptor.

        Waits for agents whose run was killed, and which store a checkpoint before they exit; `waiting` receives a sentence
        then. Raises LocalRunError if another run holds the lock.
        """
        descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._acquire(descriptor, waiting)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)

    def _acquire(self, descriptor: int, waiting: Callable[[str], None]) -> None:
        has_waited = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if self._holder_is_alive(descriptor):
                    raise LocalRunError(
                        f"{self.path.name} is already running with its state in {self.path}: wait until it ends, or stop it "
                        "with Ctrl-C in its terminal"
                    ) from None
            if not has_waited:
                waiting(f"{self.path.name}: waiting for the processes of a run that was killed, which store a checkpoint")
                has_waited = True
            time.sleep(POLL_SECONDS)

    def _holder_is_alive(self, descriptor: int) -> bool:
        """Whether the process that locked the file still runs; its agents inherit the lock and may outlive it for a while."""
        try:
            os.kill(int(os.pread(descriptor, 20, 0)), 0)
        except (ProcessLookupError, ValueError):
            return False
        except PermissionError:
            return True
        return True
