"""The state of this node's ranks, kept in the agent so that it survives a restart of the ranks."""

from __future__ import annotations

import threading
import time

from finetune_trainer.agent.metrics import Metrics
from finetune_trainer.protocol.events import (
    Alive,
    CheckpointFailed,
    CheckpointStored,
    DataFound,
    Evaluated,
    Event,
    LossAnomalyFound,
    Step,
    StragglersFound,
)
from finetune_trainer.protocol.outcome import Outcome, RunStatus

NO_DETAIL = {"detail": None, "share": None}  # the detail and share of an activity end with it


class Monitor:
    """Status and metrics of the node. Reader threads update it; the HTTP server and the agent's loop read it."""

    def __init__(self, metrics: Metrics, first_rank: int, max_loop_seconds: float = 30.0) -> None:
        self.metrics = metrics
        self._first_rank = first_rank
        self._max_loop_seconds = max_loop_seconds
        self._lock = threading.Lock()
        self._status = RunStatus()
        self._highest_step = 0
        self._has_ranks = False
        self._last_heartbeat = time.monotonic()

    def observe(self, rank: int, event: Event) -> None:
        """Update status and metrics by one event of a rank."""
        with self._lock:
            self._status = self._next_status(rank, event)
            self._highest_step = max(self._highest_step, self._status.progress.step)
        self.metrics.observe(rank, event, time.time())

    def _next_status(self, rank: int, event: Event) -> RunStatus:
        status = self._status
        match event:
            case Alive() if rank == self._first_rank or event.detail is not None:
                keeps_detail = event.detail is None and event.activity == status.activity
                source = status if keeps_detail else event
                return status.model_copy(update={"activity": event.activity, "detail": source.detail, "share": source.share})
            case DataFound():
                return status.model_copy(update={"data": event.data} | NO_DETAIL)
            case Step():
                progress = event.progress
                if progress.eval_loss is None:
                    progress = progress.model_copy(update={"eval_loss": status.progress.eval_loss})
                return status.model_copy(update={"progress": progress, "activity": "Training"} | NO_DETAIL)
            case Evaluated() if "loss" in event.metrics:
                progress = status.progress.model_copy(update={"eval_loss": event.metrics["loss"]})
                return status.model_copy(update={"progress": progress})
            case StragglersFound():
                return status.model_copy(update={"stragglers": event.stragglers})
            case LossAnomalyFound():
                return status.model_copy(update={"progress": event.progress, "loss_anomalies": event.anomalies})
            case CheckpointStored():
                return status.model_copy(update={"checkpoint": event.checkpoint, "checkpoint_error": None})
            case CheckpointFailed():
                return status.model_copy(update={"checkpoint_error": f"step {event.step}: {event.message}"})
            case _:
                return status

    def ranks_started(self, is_restart: bool) -> None:
        """Record that the ranks were started."""
        with self._lock:
            self._has_ranks = True
            restarts = self._status.in_place_restarts + is_restart
            self._status = self._status.model_copy(update={"activity": "Starting", "in_place_restarts": restarts} | NO_DETAIL)
        if is_restart:
            self.metrics.count_restart()

    def ranks_failed(self, cause: Outcome | None) -> None:
        """Record the failure because of which the ranks are restarted, if there is one."""
        text = None if cause is None else f"{cause.reason}: {cause.message}"
        with self._lock:
            self._status = self._status.model_copy(update={"restart_cause": text})

    def ranks_stopped(self) -> None:
        """Record that no rank runs."""
        with self._lock:
            self._has_ranks = False

    def heartbeat(self) -> None:
        """Record that the agent's loop runs."""
        self._last_heartbeat = time.monotonic()

    @property
    def highest_step(self) -> int:
        """The highest step of the run, even if a restart fell back to an earlier one."""
        return self._highest_step

    def status(self) -> RunStatus:
        """The answer to `GET /progress`."""
        with self._lock:
            return self._status

    def unready_reason(self) -> str | None:
        """Why the pod is not ready; None when it is."""
        seconds = time.monotonic() - self._last_heartbeat
        if seconds > self._max_loop_seconds:
            return f"the agent's loop has not run for {seconds:.0f} seconds"
        if not self._has_ranks:
            return "no rank is running: the agent waits for the other nodes"
        return None

    def complete_outcome(self, outcome: Outcome) -> Outcome:
        """The outcome, with this node's progress, checkpoint and data where it has none."""
        status = self.status()
        update: dict[str, object] = {}
        if outcome.progress.step == 0:
            update["progress"] = status.progress
        if outcome.checkpoint is None:
            update["checkpoint"] = status.checkpoint
        if outcome.data is None:
            update["data"] = status.data
        return outcome.model_copy(update=update)
