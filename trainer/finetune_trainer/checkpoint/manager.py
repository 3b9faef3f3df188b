"""Checkpoints of a run: snapshot, background upload, one manifest that commits, and restore of the newest that is whole."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import deepspeed
import torch

from finetune_trainer.checkpoint import random_state
from finetune_trainer.checkpoint.engine import SnapshotEngine
from finetune_trainer.checkpoint.manifest import OWNER, File, Manifest, canonical, hash_of, now
from finetune_trainer.checkpoint.restore import CLIENT_KEY, rank_file, restore
from finetune_trainer.checkpoint.snapshot import HostMemory
from finetune_trainer.checkpoint.topology import Topology
from finetune_trainer.checkpoint.writer import PendingSave, Writer
from finetune_trainer.config import CheckpointConfig
from finetune_trainer.distributed.collectives import on_first_rank
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.protocol.events import CheckpointFailed, EventSink
from finetune_trainer.protocol.outcome import SavedCheckpoint, StorageError
from finetune_trainer.storage.base import Storage

__all__ = ["CheckpointManager"]

DEFAULT_MINUTES = 30.0
PATIENCE_SECONDS = 30.0  # how long a save waits for the one before, unless that one is in trouble


class CheckpointManager:
    """One rank's side of it; except `due` and `last`, everything is collective.

    A save blocks training for as long as it takes DeepSpeed to gather references to its state; the copying runs beside the
    next forward and backward passes, and all that follows in the background. While a checkpoint is on its way to the storage
    the next one waits for it, for `PATIENCE_SECONDS` at most and not at all if the storage has refused once: then it is left
    out and reported as failed, since training must not wait for a storage. `finish` makes up for one that was left out.
    """

    def __init__(
        self,
        *,
        engine: Any,
        storage: Storage,
        settings: CheckpointConfig,
        identity: Mapping[str, Any],
        world: ProcessGroup,
        attempt: str,
        work_dir: Path,
        report: EventSink,
        clock: Callable[[], float] = time.monotonic,
        **writing: Any,
    ) -> None:
        """`attempt` names this life of the process group, `work_dir` is a disk of this node, `writing` goes to `Writer`."""
        self.last: SavedCheckpoint | None = None
        self._engine, self._storage, self._settings, self._world = engine, storage, settings, world
        self._identity, self._work_dir, self._report, self._clock = canonical(identity), work_dir, report, clock
        # Ranks that are started anew in place may come with the same name, but not with the same files.
        self._attempt: str = world.broadcast(f"{attempt}-{uuid.uuid4().hex[:8]}")
        self._memory = memory = HostMemory()
        memory.guard(engine.basic_optimizer)
        self._seam = engine.checkpoint_engine = SnapshotEngine(memory)
        self._writer = Writer(
            storage, memory, self._describe, attempt=self._attempt, rank=world.rank, world_size=world.size,
            keep_last=settings.keep_last, work_dir=work_dir, report=report, **writing,
        )  # fmt: skip
        self._job: PendingSave | None = None
        self._left_out: tuple[int, dict[str, Any], Sequence[int]] | None = None
        self._saved_at = clock()

    def restore(self) -> dict[str, Any] | None:
        """Resumes from the newest whole checkpoint, and takes the storage over from earlier attempts.

        Returns what was given to `save`, or None when there is no checkpoint. Raises ConfigurationError when the storage
        belongs to another run or may not be written to, and StorageError when it does not answer.
        """
        found = restore(self._engine, self._storage, self._identity, self._world, self._work_dir)
        on_first_rank(self._world, self._take_over)
        self.last = found.manifest.saved(self._storage) if found else None
        return found.client_state if found else None

    def load_best(self, best_first: Sequence[int]) -> int | None:
        """Loads the first of these steps that has a whole checkpoint, and says which; None if none of them has one.

        Raises StorageError when the storage does not answer.
        """
        found = restore(self._engine, self._storage, self._identity, self._world, self._work_dir, best_first)
        return found.manifest.step if found else None

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be stored after `step`; where the clock decides, rank 0's does."""
        if self._settings.every_steps:
            return step % self._settings.every_steps == 0
        seconds = 60 * (self._settings.every_minutes or DEFAULT_MINUTES)
        return self._world.rank == 0 and self._clock() - self._saved_at >= seconds

    def save(self, step: int, client_state: dict[str, Any], best_first: Sequence[int] = ()) -> None:
        """Takes a checkpoint after `step`; returns before it is stored. `client_state` holds tensors and plain values.

        Of the steps `best_first` the first that has a checkpoint keeps it, however old it becomes.
        """
        started = time.monotonic()
        self._saved_at = self._clock()
        before = self._job
        if before:
            before.troubled.wait(PATIENCE_SECONDS)
        if before and self._world.any(not before.done.is_set()):
            self._left_out = (step, client_state, best_first)
            self._tell_left_out(step, before)
            return
        self._note_result()
        self._start(step, client_state, best_first, started)

    def finish(self) -> None:
        """Waits until the last checkpoint is stored; raises StorageError, on every rank, if it could not be."""
        if self._job:
            self._job.done.wait()
            self._note_result()
        if self._left_out:
            # Nothing has been trained since, or a later save would have taken its place.
            self._start(*self._left_out, time.monotonic())
            self.finish()
            return
        error, self.last = self._world.broadcast((self._job.error if self._job else None, self.last))
        if error:
            raise StorageError(error)

    @property
    def stalled(self) -> float:
        """Seconds that optimizer steps have waited for the present snapshot."""
        return self._memory.stalled

    def _start(self, step: int, client_state: dict[str, Any], best_first: Sequence[int], started: float) -> None:
        self._left_out = None
        self._seam.begin(self._engine.module.buffers())
        self._seam.save(random_state.capture(), rank_file(self._world.rank))
        scratch = self._work_dir / "deepspeed"  # DeepSpeed puts scripts here that nobody reads
        scratch.mkdir(parents=True, exist_ok=True)
        self._engine.save_checkpoint(str(scratch), tag="snapshot", client_state={CLIENT_KEY: client_state}, save_latest=False)
        self._job = PendingSave(step, self._seam.files, blocked=time.monotonic() - started, best_first=best_first)
        self._writer.submit(self._job)

    def _tell_left_out(self, step: int, before: PendingSave) -> None:
        if self._world.rank == 0:
            message = f"the checkpoint of step {before.step} is still on its way to {self._storage.uri}"
            self._report(CheckpointFailed(step=step, message=message))

    def _note_result(self) -> None:
        if self._job and self._job.manifest:
            self.last = self._job.manifest.saved(self._storage)

    def _take_over(self) -> None:
        self._storage.probe_writable()
        self._storage.put(OWNER, self._attempt.encode())

    def _describe(self, step: int, files: list[File]) -> Manifest:
        topology = Topology.of(self._engine, self._world.size)
        return Manifest(
            step=step, attempt=self._attempt, world_size=topology.world_size, zero_stage=topology.zero_stage,
            precision=topology.precision, identity_hash=hash_of(self._identity), identity=self._identity, files=files,
            time=now(), deepspeed=deepspeed.__version__, torch=torch.__version__,
        )  # fmt: skip
