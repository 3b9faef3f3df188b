"""What the ranks of this node said: kept here so that it outlives a restarted rank."""

from __future__ import annotations

import threading
import time

from finetune_trainer.agent.metrics import Metrics
from finetune_trainer.protocol.events import Alive, CheckpointFailed, CheckpointStored, DataFound, Evaluated, Event, Step
from finetune_trainer.protocol.outcome import Outcome, RunStatus

NO_DETAIL = {"detail": None, "share": None}  # whatever was said of an activity ends with it


class Monitor:
    """Status and metrics of the node. Reader threads feed it, the HTTP server and the agent's loop ask it."""

    def __init__(self, metrics: Metrics, first_rank: int, healthy_seconds: float = 30.0) -> None:
        self.metrics = metrics
        self._first_rank = first_rank
        self._healthy_seconds = healthy_seconds
        self._lock = threading.Lock()
        self._status = RunStatus()
        self._highest_step = 0
        self._started = False
        self._beat = time.monotonic()

    def observe(self, rank: int, event: Event) -> None:
        """Take notice of one event of a rank."""
        with self._lock:
            self._status = self._after(rank, event)
            self._highest_step = max(self._highest_step, self._status.progress.step)
        self.metrics.observe(rank, event, time.time())

    def _after(self, rank: int, event: Event) -> RunStatus:
        status = self._status
        match event:
            case Alive() if rank == self._first_rank or event.detail is not None:
                same = event.detail is None and event.activity == status.activity
                told = status if same else event
                return status.model_copy(update={"activity": event.activity, "detail": told.detail, "share": told.share})
            case DataFound():
                return status.model_copy(update={"data": event.data} | NO_DETAIL)
            case Step():
                kept = {} if event.progress.eval_loss is not None else {"eval_loss": status.progress.eval_loss}
                progress = event.progress.model_copy(update=kept)
                return status.model_copy(update={"progress": progress, "activity": "Training"} | NO_DETAIL)
            case Evaluated() if "loss" in event.metrics:
                progress = status.progress.model_copy(update={"eval_loss": event.metrics["loss"]})
                return status.model_copy(update={"progress": progress})
            case CheckpointStored():
                return status.model_copy(update={"checkpoint": event.checkpoint, "checkpoint_error": None})
            case CheckpointFailed():
                return status.model_copy(update={"checkpoint_error": f"step {event.step}: {event.message}"})
            case _:
                return status

    def ranks_started(self, anew: bool) -> None:
        """The ranks were started, for the first time or anew."""
        with self._lock:
            self._started = True
            restarts = self._status.in_place_restarts + anew
            self._status = self._status.model_copy(update={"activity": "Starting", "in_place_restarts": restarts} | NO_DETAIL)
        if anew:
            self.metrics.restarted()

    def ranks_stopped(self) -> None:
        """No rank runs: the agent waits for the other nodes."""
        with self._lock:
            self._started = False

    def beat(self) -> None:
        """The agent's loop turned once more."""
        self._beat = time.monotonic()

    @property
    def highest_step(self) -> int:
        """The furthest the run ever was, restarts that fell back behind it left aside."""
        return self._highest_step

    def status(self) -> RunStatus:
        """What `GET /progress` answers."""
        with self._lock:
            return self._status

    def complaint(self) -> str | None:
        """Why the pod is not ready, or None when it is."""
        silence = time.monotonic() - self._beat
        if silence > self._healthy_seconds:
            return f"the agent's loop has stood still for {silence:.0f} seconds"
        return None if self._started else "the agent waits for the other nodes; no rank runs"

    def completed(self, outcome: Outcome) -> Outcome:
        """The outcome, with what this node knows of progress and checkpoint where it says nothing of them."""
        status = self.status()
        known: dict[str, object] = {}
        if outcome.progress.step == 0:
            known["progress"] = status.progress
        if outcome.checkpoint is None:
            known["checkpoint"] = status.checkpoint
        if outcome.data is None:
            known["data"] = status.data
        return outcome.model_copy(update=known)
