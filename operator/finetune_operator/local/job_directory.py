"""The directory with the state of one local run."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune_operator.local.errors import LocalRunError


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
    def locked(self) -> Iterator[int]:
        """Hold the lock, so that a job has one run at a time; yields the lock's file descriptor.

        Raises LocalRunError if another run, or an agent it left running, holds the lock.
        """
        descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LocalRunError(
                    f"{self.path.name} is already running with its state in {self.path}: wait until it ends, or stop it with "
                    "Ctrl-C in its terminal"
                ) from None
            yield descriptor
        finally:
            os.close(descriptor)
