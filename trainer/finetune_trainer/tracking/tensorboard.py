"""Event files for TensorBoard beside the checkpoints, made of what the first rank reports anyway."""

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
def recording(report: EventSink, storage: Storage, work_dir: Path) -> Iterator[EventSink]:
    """A report that passes events on and keeps their numbers; what was kept is stored when checkpoints are, and at the end.

    Storing goes on in a thread of its own. If it fails, that is logged, and tried again with the next checkpoint.
    """
    files = EventFiles(report, storage.child(FOLDER), work_dir / FOLDER)
    try:
        yield files
    finally:
        files.close()


class EventFiles:
    """Each life of the run writes a file of its own, whose first event takes back what an earlier life did after its step."""

    def __init__(self, report: EventSink, storage: Storage, folder: Path) -> None:
        self._report, self._storage, self._folder = report, storage, folder
        self._writer: Any = None
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "event-files")
        self._storing: Future[None] | None = None

    def __call__(self, event: Event) -> None:
        """Takes note of an event, from whichever thread, and passes it on."""
        self._report(event)
        match event:
            case Step():
                numbers = _of_progress(event.progress) | {"train/gradientNorm": event.gradient_norm}
                self._add(event.progress.step, event.progress.step, numbers)
            case Evaluated():
                # Before this life's first step: the step that was evaluated is of a life before, and stays.
                numbers = {f"evaluation/{name}": value for name, value in event.metrics.items()}
                self._add(event.step, event.step + 1, numbers)
            case CheckpointStored() if self._storing is None or self._storing.done():
                self._storing = self._thread.submit(self._store)

    def close(self) -> None:
        """Stores the rest."""
        self._thread.shutdown()
        self._store()
        if self._writer:
            self._writer.close()

    def _add(self, step: int, first: int, numbers: dict[str, float]) -> None:
        with self._lock:
            if self._writer is None:
                # It takes a second to import, and a process that only resumes a finished run has nothing to write.
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(self._folder), max_queue=1000, purge_step=first)
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def _store(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.flush()
            self._storage.upload_folder(self._folder)
        except (TrainerError, OSError) as error:
            log.warning("the event files for TensorBoard could not be stored: %s", error)


def _of_progress(progress: Progress) -> dict[str, float]:
    found = {
        "train/loss": progress.loss, "train/learningRate": progress.learning_rate,
        "train/tokensPerSecond": progress.tokens_per_second, "train/epoch": progress.epoch,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}
