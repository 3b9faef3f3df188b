"""Stores snapshots in the background: write and hash, upload, and on rank 0 commit; training never waits for a storage.

One checkpoint is on its way at a time. Its host memory is used again by the next one, and two at once would only share the
same bandwidth and cores.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from finetune_trainer.checkpoint import commit, files
from finetune_trainer.checkpoint.manifest import File, Manifest, Part, folder_of
from finetune_trainer.checkpoint.retention import retain
from finetune_trainer.checkpoint.snapshot import HostMemory
from finetune_trainer.protocol.events import CheckpointFailed, CheckpointPhase, CheckpointStored, EventSink
from finetune_trainer.protocol.outcome import TrainerError
from finetune_trainer.storage.base import Storage

log = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # pauses between attempts to reach the storage
PART_SECONDS = 300.0  # how much longer than rank 0 another rank may take
_NICENESS = 10  # of the writing thread: it gets what cores the training leaves


@dataclass
class PendingSave:
    """One checkpoint of one rank on its way to the storage."""

    step: int
    files: dict[str, Any]
    blocked: float  # seconds that the training stood still for it until now
    best_first: Sequence[int] = ()  # steps; retention keeps the first of them that it finds
    done: threading.Event = field(default_factory=threading.Event)
    troubled: threading.Event = field(default_factory=threading.Event)  # done, or an attempt to reach the storage failed
    error: str | None = None
    manifest: Manifest | None = None


class Writer:
    """The background thread of one rank.

    `describe(step, files)` makes the manifest of a step from the files of all ranks.
    """

    def __init__(
        self,
        storage: Storage,
        memory: HostMemory,
        describe: Callable[[int, list[File]], Manifest],
        *,
        attempt: str,
        rank: int,
        world_size: int,
        keep_last: int,
        work_dir: Path,
        report: EventSink,
        retry_seconds: tuple[float, ...] = RETRY_SECONDS,
        part_seconds: float = PART_SECONDS,
    ) -> None:
        self._storage, self._memory, self._describe, self._report = storage, memory, describe, report
        self._attempt, self._rank, self._world_size, self._keep_last = attempt, rank, world_size, keep_last
        self._retry_seconds, self._part_seconds = retry_seconds, part_seconds
        self._local = work_dir / "upload" / f"rank-{rank:05d}"
        # What a killed process of this rank left behind would fill the disk.
        shutil.rmtree(self._local, ignore_errors=True)
        self._thread = ThreadPoolExecutor(1, "checkpoint-writer", initializer=_step_back)

    def submit(self, job: PendingSave) -> None:
        """Starts storing; the job says itself when it is done and how it went."""
        self._thread.submit(self._run, job)

    def close(self) -> None:
        """Ends the thread when its job is done."""
        self._thread.shutdown()

    def _run(self, job: PendingSave) -> None:
        try:
            self._store(job)
        except Exception as error:
            job.error = _sentence(error)
            log.warning("the checkpoint of step %d could not be stored: %s", job.step, job.error)
            if self._rank == 0:
                self._report(CheckpointFailed(step=job.step, message=job.error[:1000]))
            else:
                self._tell_first_rank(job)
        finally:
            job.files = {}
            shutil.rmtree(self._local, ignore_errors=True)
            job.troubled.set()
            job.done.set()

    def _store(self, job: PendingSave) -> None:
        self._memory.wait()
        started = time.monotonic()
        folder, target = folder_of(job.step, self._attempt), self._storage.folder
        # Where the storage is a folder, files are written where they stay.
        local = target / folder if target else self._local
        written = [
            files.write(content, local / name, self._rank, read_soon=target is None) for name, content in job.files.items()
        ]
        job.files = {}
        wrote = time.monotonic()
        if target is None:
            for file in written:
                self._retry(job, partial(self._storage.put, f"{folder}/{file.name}", local / file.name))
        part = Part(rank=self._rank, files=written)
        self._retry(job, lambda: commit.put_part(self._storage, job.step, self._attempt, part))
        if self._rank == 0:
            self._commit(job)
            self._announce(job, wrote - started, time.monotonic() - wrote)

    def _commit(self, job: PendingSave) -> None:
        parts = self._retry(
            job, lambda: commit.collect_parts(self._storage, job.step, self._attempt, self._world_size, self._part_seconds)
        )
        manifest = self._describe(job.step, [file for part in parts for file in part.files])
        self._retry(job, lambda: commit.commit(self._storage, manifest))
        job.manifest = manifest
        try:
            retain(self._storage, self._keep_last, manifest, job.best_first)
        except Exception as error:
            # What is committed stays committed, whatever becomes of its predecessors.
            log.warning("old checkpoints could not be removed: %s", error)

    def _announce(self, job: PendingSave, write: float, upload: float) -> None:
        assert job.manifest is not None
        seconds: dict[CheckpointPhase, float] = {
            "snapshot": job.blocked + self._memory.stalled,
            "write": write,
            "upload": upload,
        }
        saved = job.manifest.saved(self._storage)
        self._report(CheckpointStored(checkpoint=saved, size_bytes=job.manifest.size, seconds=seconds))

    def _retry(self, job: PendingSave, action: Callable[[], T]) -> T:
        """Tries again, with growing pauses, what a storage refused; raises the last create_error."""
        for pause in self._retry_seconds:
            try:
                return action()
            except commit.Refused:
                raise
            except TrainerError as error:
                log.info("the checkpoint of step %d is tried again in %.0f s: %s", job.step, pause, error)
                job.troubled.set()
                time.sleep(pause)
        return action()

    def _tell_first_rank(self, job: PendingSave) -> None:
        # If this fails as well, rank 0 finds out by waiting.
        with suppress(TrainerError):
            commit.put_part(self._storage, job.step, self._attempt, Part(rank=self._rank, error=job.error))


def _step_back() -> None:
    # Linux gives each thread a niceness of its own; where that is not so, the thread competes as an equal.
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror or error} ({error.filename or 'local disk'}): make room on the trainer's disk"
    return str(error) if isinstance(error, TrainerError) else f"{type(error).__name__}: {error}"
