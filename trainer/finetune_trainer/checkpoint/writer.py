"""Stores snapshots in the background: write and hash, upload, and on rank 0 commit. Training never waits for the storage.

One checkpoint is stored at a time: its host memory is reused by the next one, and two at once would only share the bandwidth
and the cores.
"""

from __future__ import annotations

import errno
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
from finetune_trainer.checkpoint.context import CheckpointContext
from finetune_trainer.checkpoint.local_copy import LocalCopy
from finetune_trainer.checkpoint.manifest import File, Manifest, Part, checkpoint_folder
from finetune_trainer.checkpoint.retention import apply_retention
from finetune_trainer.checkpoint.snapshot import HostMemory
from finetune_trainer.protocol.events import CheckpointFailed, CheckpointPhase, CheckpointStored
from finetune_trainer.protocol.full_volumes import SCRATCH_ADVICE
from finetune_trainer.protocol.heartbeat import BackgroundWork
from finetune_trainer.protocol.outcome import TrainerError

log = logging.getLogger(__name__)
T = TypeVar("T")

_NICENESS = 10  # of the writer thread, so that training gets the cores first


@dataclass(frozen=True)
class WriterTimeouts:
    """How long the writer keeps trying, in seconds."""

    retry_pauses: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    """Pauses between tries of a request to the storage."""
    parts: float = 7200.0
    """How long rank 0 waits for the parts of the other ranks after it stored its files: nodes may differ in their bandwidth."""


@dataclass
class PendingSave:
    """One rank's part of a checkpoint that is being stored."""

    step: int
    files: dict[str, Any]
    blocked: float  # seconds that the save has blocked training
    ranked_steps: Sequence[int] = ()  # evaluated steps, best first; retention keeps the first that has a checkpoint
    done: threading.Event = field(default_factory=threading.Event)
    done_or_retrying: threading.Event = field(default_factory=threading.Event)  # done, or a request to the storage failed
    work: BackgroundWork = field(default_factory=BackgroundWork)
    error: str | None = None
    manifest: Manifest | None = None


class Writer:
    """The background thread of one rank. `create_manifest(step, files)` builds the manifest from the files of all ranks."""

    def __init__(
        self,
        context: CheckpointContext,
        memory: HostMemory,
        create_manifest: Callable[[int, list[File]], Manifest],
        *,
        keep_last: int,
        timeouts: WriterTimeouts,
    ) -> None:
        self._context, self._memory, self._create_manifest = context, memory, create_manifest
        self._keep_last, self._timeouts = keep_last, timeouts
        self._local_copy = LocalCopy(context.work_dir, context.group.rank)
        # The files of a process of this rank that was killed would fill the disk.
        shutil.rmtree(context.upload_dir, ignore_errors=True)
        self._thread = ThreadPoolExecutor(1, "checkpoint-writer", initializer=_lower_priority)

    def submit(self, save: PendingSave) -> None:
        """Start to store the save; its events and fields report the progress and the result."""
        self._thread.submit(self._run, save)

    def _run(self, save: PendingSave) -> None:
        try:
            with save.work.running():
                self._store(save)
        except Exception as error:
            save.error = self._error_sentence(error)
            log.warning("the checkpoint of step %d could not be stored: %s", save.step, save.error)
            self._report_failure(save, save.error)
        finally:
            save.files = {}
            shutil.rmtree(self._context.upload_dir, ignore_errors=True)
            save.done_or_retrying.set()
            save.done.set()

    def _store(self, save: PendingSave) -> None:
        self._memory.wait()
        started = time.monotonic()
        written = self._write_files(save)
        write_seconds = time.monotonic() - started
        started = time.monotonic()
        self._upload(save, written)
        if self._context.group.is_first:
            manifest = self._commit(save)
            self._report_stored(save, manifest, write_seconds, time.monotonic() - started)

    def _write_files(self, save: PendingSave) -> list[File]:
        storage = self._context.storage
        folder = self._context.upload_dir
        if storage.folder is not None:
            # A storage that is a folder gets the files in place.
            folder = storage.folder / checkpoint_folder(save.step, self._context.attempt)
        self._local_copy.clear()  # the disk may have no room for two
        is_uploaded = storage.folder is None
        written = []
        for name, content in save.files.items():
            written.append(files.write(content, folder / name, self._context.group.rank, read_soon=is_uploaded))
        save.files = {}
        return written

    def _upload(self, save: PendingSave, written: list[File]) -> None:
        """Store all files of this rank and after them its part, which promises that they are stored."""
        storage, attempt = self._context.storage, self._context.attempt
        if storage.folder is None:
            folder = checkpoint_folder(save.step, attempt)
            for file in written:
                self._retry(save, partial(storage.put, f"{folder}/{file.name}", self._context.upload_dir / file.name))
        part = Part(rank=self._context.group.rank, files=written)
        self._retry(save, lambda: commit.put_part(storage, save.step, attempt, part))
        if storage.folder is None:
            self._local_copy.keep(self._context.upload_dir, Path(checkpoint_folder(save.step, attempt)).name)

    def _commit(self, save: PendingSave) -> Manifest:
        storage, attempt, world_size = self._context.storage, self._context.attempt, self._context.group.size
        parts = self._retry(save, lambda: commit.collect_parts(storage, save.step, attempt, world_size, self._timeouts.parts))
        manifest = self._create_manifest(save.step, [file for part in parts for file in part.files])
        self._retry(save, lambda: commit.commit(storage, manifest))
        save.manifest = manifest
        try:
            apply_retention(storage, self._keep_last, manifest, save.ranked_steps)
        except Exception as error:
            # The checkpoint is committed, whether or not older ones can be deleted.
            log.warning("old checkpoints could not be deleted: %s", error)
        return manifest

    def _retry(self, save: PendingSave, action: Callable[[], T]) -> T:
        """Repeat a request that the storage refused, with growing pauses; raises its last error."""
        for pause in self._timeouts.retry_pauses:
            try:
                return action()
            except commit.CommitError:
                raise
            except TrainerError as error:
                log.info("storing the checkpoint of step %d is retried in %.0f s: %s", save.step, pause, error)
                save.done_or_retrying.set()
                time.sleep(pause)
        return action()

    def _report_stored(self, save: PendingSave, manifest: Manifest, write_seconds: float, upload_seconds: float) -> None:
        seconds: dict[CheckpointPhase, float] = {
            "snapshot": save.blocked + self._memory.stalled,
            "write": write_seconds,
            "upload": upload_seconds,
        }
        checkpoint = manifest.to_saved_checkpoint(self._context.storage)
        self._context.report(CheckpointStored(checkpoint=checkpoint, size_bytes=manifest.size, seconds=seconds))

    def _report_failure(self, save: PendingSave, error: str) -> None:
        context = self._context
        if context.group.is_first:
            context.report(CheckpointFailed(step=save.step, message=error[:1000]))
            return
        # If this request fails as well, rank 0 waits for the part until its timeout.
        with suppress(TrainerError):
            commit.put_part(context.storage, save.step, context.attempt, Part(rank=context.group.rank, error=error))

    def _error_sentence(self, error: Exception) -> str:
        if isinstance(error, OSError):
            return f"{error.strerror or error} ({error.filename or 'local disk'}): {self._disk_advice(error)}"
        if isinstance(error, TrainerError):
            return str(error)
        return f"{type(error).__name__}: {error}"

    def _disk_advice(self, error: OSError) -> str:
        storage = self._context.storage
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return "check the disk that this file is on"
        return SCRATCH_ADVICE if storage.folder is None else f"make room in {storage.uri}"


def _lower_priority() -> None:
    # Linux has a niceness per thread; elsewhere the thread keeps the priority of the process.
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
