"""TensorBoard event files, stored next to the checkpoints and written from the events of the first rank."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from finetune_trainer.protocol.events import CheckpointStored, Evaluated, Event, EventSink, Step
from finetune_trainer.protocol.outcome import Progress, TrainerError
from finetune_trainer.storage.base import Storage

FOLDER = "tensorboard"
log = logging.getLogger(__name__)


@contextlib.contextmanager
def record_to_tensorboard(report: EventSink, storage: Storage, work_dir: Path) -> Iterator[EventSink]:
    """An event sink that passes events on to `report` and records their numbers.

    The event files are uploaded after each checkpoint and at the end. The upload runs in a background thread; a failure is
    logged and the next checkpoint retries it.
    """
    recorder = TensorBoardRecorder(report, storage.child(FOLDER), work_dir / FOLDER)
    try:
        yield recorder
    finally:
        recorder.close()


class TensorBoardRecorder:
    """Writes one event file for each attempt of the run.

    The first event of a file purges the events that an earlier attempt recorded after the step that this attempt resumes from.
    If the disk fails, nothing is recorded until the next checkpoint is stored: the run is worth more than its event files.
    """

    def __init__(self, report: EventSink, storage: Storage, folder: Path) -> None:
        self._report, self._storage, self._folder = report, storage, folder
        self._writer: Any = None
        self._has_failed = False
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(1, "tensorboard")
        self._upload: Future[None] | None = None

    def __call__(self, event: Event) -> None:
        """Pass the event on and record it; any thread may call this."""
        self._report(event)
        match event:
            case Step():
                scalars = _progress_scalars(event.progress) | {"train/gradientNorm": event.gradient_norm}
                self._add_scalars(event.progress.step, scalars, purge_step=event.progress.step)
            case Evaluated():
                scalars = {f"evaluation/{name}": value for name, value in event.metrics.items()}
                # An evaluation before the first step of this attempt is of the step it resumed from, whose events stay.
                self._add_scalars(event.step, scalars, purge_step=event.step + 1)
            case CheckpointStored():
                self._has_failed = False
                if self._upload is None or self._upload.done():
                    self._upload = self._executor.submit(self._upload_files)

    def close(self) -> None:
        """Upload the remaining events."""
        self._executor.shutdown()
        self._upload_files()
        if self._writer:
            with contextlib.suppress(OSError):
                self._writer.close()

    def _add_scalars(self, step: int, scalars: dict[str, float], purge_step: int) -> None:
        if self._has_failed:
            return
        try:
            writer = self._open_writer(purge_step)
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)
        except OSError as error:
            log.warning("nothing is recorded for TensorBoard until the next checkpoint is stored: %s", error)
            self._has_failed, self._writer = True, None

    def _open_writer(self, purge_step: int) -> Any:
        with self._lock:
            if self._writer is None:
                # Imported late: it takes a second, and a process that only resumes a finished run writes no events.
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(self._folder), max_queue=1000, purge_step=purge_step)
            return self._writer

    def _upload_files(self) -> None:
        writer = self._writer
        if writer is None:
            return
        try:
            writer.flush()
            self._storage.upload_folder(self._folder)
        except (TrainerError, OSError) as error:
            log.warning("the event files for TensorBoard could not be stored: %s", error)


def _progress_scalars(progress: Progress) -> dict[str, float]:
    scalars = {
        "train/loss": progress.loss, "train/learningRate": progress.learning_rate,
        "train/tokensPerSecond": progress.tokens_per_second, "train/epoch": progress.epoch,
    }  # fmt: skip
    return {name: value for name, value in scalars.items() if value is not None}
