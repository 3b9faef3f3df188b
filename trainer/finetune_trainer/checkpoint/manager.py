"""Checkpoints of a run: snapshot, background upload, commit by one manifest, and restore of the newest complete checkpoint."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from finetune_trainer.checkpoint import random_state
from finetune_trainer.checkpoint.context import CheckpointContext
from finetune_trainer.checkpoint.manifest import OWNER, File, Manifest, utc_timestamp
from finetune_trainer.checkpoint.parameters import ParameterRecord
from finetune_trainer.checkpoint.restore import CLIENT_KEY, rank_file, restore
from finetune_trainer.checkpoint.snapshot import HostMemory
from finetune_trainer.checkpoint.topology import Topology
from finetune_trainer.checkpoint.writer import PendingSave, Writer, WriterTimeouts
from finetune_trainer.config import CheckpointConfig
from finetune_trainer.distributed.collectives import on_first_rank
from finetune_trainer.distributed.process_group import import_deepspeed
from finetune_trainer.protocol.events import CheckpointFailed
from finetune_trainer.protocol.heartbeat import wait_bounded
from finetune_trainer.protocol.outcome import SavedCheckpoint, StorageError

DEFAULT_MINUTES = 30.0
MAX_WAIT_SECONDS = 30.0  # how long a save waits for the previous one, unless the storage has refused a request of that one


class _SaveRequest(NamedTuple):
    """The arguments of `CheckpointManager.save`."""

    step: int
    client_state: dict[str, Any]
    ranked_steps: Sequence[int]


class CheckpointManager:
    """One rank's part in the checkpoints of a run. All methods are collective; `is_due` and `last` are local.

    A save blocks training only while DeepSpeed gathers references to its state. The copying runs during the next forward and
    backward passes, and everything after it in the background. While a checkpoint is being stored, the next save waits for it,
    at most `MAX_WAIT_SECONDS`, or not at all if the storage has refused a request: then the save is skipped and reported as
    failed, because training must not wait for the storage. `finish` repeats a skipped save.
    """

    def __init__(
        self,
        engine: Any,
        config: CheckpointConfig,
        context: CheckpointContext,
        *,
        timeouts: WriterTimeouts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`engine` is a DeepSpeed engine; the process group must be joined."""
        self._deepspeed_version: str = import_deepspeed().__version__
        from finetune_trainer.checkpoint.engine import SnapshotEngine

        self.last: SavedCheckpoint | None = None
        self._engine, self._config, self._clock = engine, config, clock
        # Ranks that are restarted in place may get the same attempt name again, but their files must not be mixed up.
        attempt: str = context.group.broadcast(f"{context.attempt}-{uuid.uuid4().hex[:8]}")
        self._context = replace(context, attempt=attempt)
        self._memory = HostMemory()
        self._memory.guard(engine.basic_optimizer)
        self._snapshot_engine = engine.checkpoint_engine = SnapshotEngine(self._memory)
        engine._copy_recovery_script = lambda folder: None  # nobody uses its scripts, and a full disk would end the run
        self._writer = Writer(
            self._context, self._memory, self._create_manifest, keep_last=config.keep_last,
            timeouts=timeouts or WriterTimeouts(),
        )  # fmt: skip
        self._pending: PendingSave | None = None
        self._skipped: _SaveRequest | None = None
        self._saved_at = clock()

    @property
    def attempt(self) -> str:
        """The name of this attempt, which no other one has."""
        return self._context.attempt

    def restore(self) -> dict[str, Any] | None:
        """Resume from the newest complete checkpoint, and take ownership of the storage from earlier attempts.

        Returns the state that `save` was given, or None when there is no checkpoint. Raises ConfigurationError when the storage
        belongs to another run or is not writable, and StorageError when it does not answer.
        """
        restored = restore(self._engine, self._context)
        on_first_rank(self._context.group, self._take_ownership)
        if restored is None:
            self.last = None
            return None
        self.last = restored.manifest.to_saved_checkpoint(self._context.storage)
        return restored.client_state

    def load_best(self, ranked_steps: Sequence[int]) -> int | None:
        """Load the first of these steps that has a complete checkpoint and return it; None if none of them has one.

        Raises StorageError when the storage does not answer.
        """
        restored = restore(self._engine, self._context, ranked_steps)
        return restored.manifest.step if restored else None

    def is_due(self, step: int) -> bool:
        """Whether to save after `step`. For an interval in minutes, True only on rank 0, whose clock decides."""
        if self._config.every_steps:
            return step % self._config.every_steps == 0
        seconds = 60 * (self._config.every_minutes or DEFAULT_MINUTES)
        return self._context.group.is_first and self._clock() - self._saved_at >= seconds

    def save(self, step: int, client_state: dict[str, Any], ranked_steps: Sequence[int] = ()) -> None:
        """Take a checkpoint after `step`; returns before it is stored. `client_state` holds tensors and plain values.

        Of the steps `ranked_steps`, the first that has a checkpoint is kept regardless of its age.
        """
        started = time.monotonic()
        self._saved_at = self._clock()
        request = _SaveRequest(step, client_state, ranked_steps)
        previous = self._pending
        if previous is not None:
            wait_bounded(previous.done_or_retrying, MAX_WAIT_SECONDS)
            # Skip together: host memory of a rank that is still writing must not be reused.
            if self._context.group.any(not previous.done.is_set()):
                self._skipped = request
                self._report_skipped(step, previous)
                return
        self._record_result()
        self._start(request, started)

    def finish(self) -> None:
        """Wait until the last checkpoint is stored; raises StorageError on every rank if it could not be."""
        if self._pending:
            self._pending.work.wait(self._pending.done)
            self._record_result()
        if self._skipped:
            # No step was trained since, or a later save would have replaced it.
            self._start(self._skipped, time.monotonic())
            self.finish()
            return
        error = self._pending.error if self._pending else None
        error, self.last = self._context.group.broadcast((error, self.last))
        if error:
            raise StorageError(error)

    def _start(self, request: _SaveRequest, started: float) -> None:
        self._skipped = None
        self._snapshot_engine.begin(self._engine.module.buffers())
        self._snapshot_engine.save(random_state.capture(), rank_file(self._context.group.rank))
        client_state = {CLIENT_KEY: request.client_state}
        self._engine.save_checkpoint("unused", tag="snapshot", client_state=client_state, save_latest=False)
        self._pending = PendingSave(
            request.step, self._snapshot_engine.files, blocked=time.monotonic() - started, ranked_steps=request.ranked_steps
        )
        self._writer.submit(self._pending)

    def _report_skipped(self, step: int, previous: PendingSave) -> None:
        if self._context.group.is_first:
            message = f"the checkpoint of step {previous.step} is still being stored at {self._context.storage.uri}"
            self._context.report(CheckpointFailed(step=step, message=message))

    def _record_result(self) -> None:
        if self._pending and self._pending.manifest:
            self.last = self._pending.manifest.to_saved_checkpoint(self._context.storage)

    def _take_ownership(self) -> None:
        self._context.storage.probe_writable()
        self._context.storage.put(OWNER, self._context.attempt.encode())

    def _create_manifest(self, step: int, files: list[File]) -> Manifest:
        context = self._context
        topology = Topology.of(self._engine, context.group.size)
        return Manifest(
            step=step, total_steps=context.total_steps, attempt=context.attempt, world_size=topology.world_size,
            zero_stage=topology.zero_stage, precision=topology.precision, identity=dict(context.identity), data=context.data,
            parameters=ParameterRecord.of(self._engine.module), files=files, time=utc_timestamp(),
            deepspeed=self._deepspeed_version, torch=torch.__version__,
        )  # fmt: skip
