"""Reports training progress: a limited number of events for the agent, and lines in the log."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.protocol.events import Evaluated, EventSink, LossAnomalyFound, Step, StepTime, StragglersFound
from finetune_trainer.protocol.outcome import LossAnomalies, Progress, Straggler

MAX_EVENTS_PER_SECOND = 5
RECENT_STEPS = 20
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedStep:
    """A finished optimizer step: `tokens` trained on and `samples` over all ranks, durations of this rank in seconds."""

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    samples: int
    padding_ratio: float
    seconds: float
    data_wait_seconds: float
    forward_seconds: float


class Reporter:
    """Turns steps into events and log lines.

    Steps that are faster than five a second are aggregated: an event counts the tokens, samples and durations of all steps
    since the previous event. Logged steps and the last step always have an event. Speed and remaining time are computed from
    the durations of recent steps, without evaluations and checkpoints in between.
    """

    def __init__(
        self, report: EventSink, group: ProcessGroup, *, total_steps: int, steps_per_epoch: float, log_every: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.report = report
        self.progress = Progress(total_steps=total_steps)
        self._group = group
        self._steps_per_epoch = steps_per_epoch
        self._log_every = log_every
        self._clock = clock
        self._recent: deque[FinishedStep] = deque(maxlen=RECENT_STEPS)
        self._last_event = -1.0
        # Totals since the last `StepTime` event, and since the last `Step` event.
        self._steps = 0
        self._seconds = self._data_wait_seconds = self._forward_seconds = 0.0
        self._tokens = self._samples = 0

    def resume(self, step: int, loss: float | None, eval_loss: float | None) -> None:
        """Set the progress of a run that resumes after this step."""
        self._update(step, loss=loss, eval_loss=eval_loss)

    def step_finished(self, finished: FinishedStep) -> None:
        """Count a finished step and report it, if it is logged or the last event is old enough."""
        self._recent.append(finished)
        self._steps += 1
        self._seconds += finished.seconds
        self._data_wait_seconds += finished.data_wait_seconds
        self._forward_seconds += finished.forward_seconds
        self._tokens += finished.tokens
        self._samples += finished.samples
        self._update(finished.step, loss=finished.loss, learning_rate=finished.learning_rate)
        is_logged = finished.step % self._log_every == 0 or finished.step == self.progress.total_steps
        now = self._clock()
        if not is_logged and now - self._last_event < 1 / MAX_EVENTS_PER_SECOND:
            return
        self._last_event = now
        self.report(
            StepTime(
                steps=self._steps, seconds=self._seconds, data_wait_seconds=self._data_wait_seconds,
                forward_seconds=self._forward_seconds,
            )
        )  # fmt: skip
        self._steps = 0
        self._seconds = self._data_wait_seconds = self._forward_seconds = 0.0
        if not self._group.is_first:
            return
        self.report(
            Step(
                progress=self.progress, gradient_norm=finished.gradient_norm, tokens=self._tokens, samples=self._samples,
                padding_ratio=finished.padding_ratio,
            )
        )  # fmt: skip
        self._tokens = self._samples = 0
        if is_logged:
            self._log_progress(finished.gradient_norm)

    def stragglers_found(self, stragglers: list[Straggler]) -> None:
        """Report the ranks that are slower than the others; there may be none any more."""
        self.report(StragglersFound(stragglers=stragglers))
        for straggler in stragglers:
            log.warning(
                "rank %d on node %d is slow: its work in a step takes %.2f times as long as that of the other ranks, which "
                "wait for it", straggler.rank, straggler.node, straggler.ratio,
            )  # fmt: skip

    def loss_anomaly_found(self, step: int, anomalies: LossAnomalies) -> None:
        """Report a step that was skipped, or a return to this step, and what happened before."""
        self._update(step)
        if self._group.is_first:
            self.report(LossAnomalyFound(progress=self.progress, anomalies=anomalies))
            log.warning("%s", anomalies.message)

    def finish(self, step: int) -> None:
        """Mark the run as complete at this step, which is before the planned last step if the run stopped early."""
        self.progress = self.progress.model_copy(update={"total_steps": step, "percent": 100, "remaining_seconds": 0})

    def evaluation_finished(self, step: int, metrics: dict[str, float]) -> None:
        """Report metrics on the evaluation data after this step."""
        self._update(step, eval_loss=metrics["loss"])
        if self._group.is_first:
            self.report(Evaluated(step=step, metrics=metrics))
            log.info("step %d: evaluation %s", step, " ".join(f"{name} {value:.4f}" for name, value in metrics.items()))

    def _update(self, step: int, **changes: float | None) -> None:
        total_steps = self.progress.total_steps
        seconds = sum(finished.seconds for finished in self._recent)
        tokens = sum(finished.tokens for finished in self._recent)
        remaining_seconds = None
        if self._recent:
            remaining_seconds = round((total_steps - step) * seconds / len(self._recent))
        update: dict[str, float | None] = {
            "step": step,
            "epoch": step / self._steps_per_epoch,
            "percent": 100 * step // total_steps,
            "remaining_seconds": remaining_seconds,
            "tokens_per_second": tokens / seconds if seconds else None,
        }
        for name, value in changes.items():
            if value is not None:
                update[name] = value
        self.progress = self.progress.model_copy(update=update)

    def _log_progress(self, gradient_norm: float) -> None:
        progress = self.progress
        log.info(
            "step %d/%d (%d %%) loss %.4f gradient norm %.3g learning rate %.3g, %.0f tokens/s, %s left",
            progress.step, progress.total_steps, progress.percent, progress.loss, gradient_norm, progress.learning_rate,
            progress.tokens_per_second or 0, timedelta(seconds=progress.remaining_seconds or 0),
        )  # fmt: skip
