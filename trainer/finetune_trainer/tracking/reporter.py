"""What a rank says while it trains: events for the agent, not too many of them, and lines in the log."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Literal

from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.protocol.events import Alive, Evaluated, EventSink, Step, StepTime
from finetune_trainer.protocol.outcome import Progress

MOST_EVENTS_PER_SECOND = 5
RECENT_STEPS = 20
Activity = Literal["Starting", "Preparing", "Training", "Evaluating", "Exporting"]
log = logging.getLogger(__name__)


class Reporter:
    """Turns steps into events and log lines.

    Steps that come faster than five a second are gathered: an event counts the tokens, samples and times of all steps since the
    one before it. Logged steps and the last one are always told. Speed and remaining time come from the last steps' own
    durations, so that evaluations and checkpoints in between do not disturb them.
    """

    def __init__(
        self, report: EventSink, world: ProcessGroup, *, total_steps: int, steps_per_epoch: float, log_every: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.report = report
        self.progress = Progress(total_steps=total_steps)
        self._world = world
        self._steps_per_epoch = steps_per_epoch
        self._log_every = log_every
        self._clock = clock
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT_STEPS)
        self._last_event = self._last_alive = -1.0
        self._tokens = self._samples = 0
        self._untold = 0
        self._seconds = self._waited = 0.0

    def alive(self, activity: Activity) -> None:
        """A sign of life; to be given as often as there is one, it is sent now and then."""
        if self._clock() - self._last_alive >= 1:
            self._last_alive = self._clock()
            self.report(Alive(activity=activity))

    def resume(self, finished: int, loss: float | None, eval_loss: float | None) -> None:
        """A run that starts at a later step."""
        self._update(finished=finished, loss=loss, eval_loss=eval_loss)

    def step(
        self, *, finished: int, loss: float, gradient_norm: float, learning_rate: float, tokens: int, samples: int,
        padding: float, seconds: float, waited: float,
    ) -> None:  # fmt: skip
        """One finished step: `tokens` learnt from and `samples`, over all ranks; this rank's durations in seconds."""
        self._recent.append((tokens, seconds))
        self._tokens += tokens
        self._samples += samples
        self._untold += 1
        self._seconds += seconds
        self._waited += waited
        self._update(finished=finished, loss=loss, learning_rate=learning_rate)
        is_logged = finished % self._log_every == 0 or finished == self.progress.total_steps
        now = self._clock()
        if not is_logged and now - self._last_event < 1 / MOST_EVENTS_PER_SECOND:
            return
        self._last_event = now
        self.report(StepTime(steps=self._untold, seconds=self._seconds, data_wait_seconds=self._waited))
        self._untold = 0
        self._seconds = self._waited = 0.0
        if not self._world.is_first:
            return
        self.report(
            Step(
                progress=self.progress, gradient_norm=gradient_norm, tokens=self._tokens, samples=self._samples,
                padding_ratio=padding,
            )
        )  # fmt: skip
        self._tokens = self._samples = 0
        if is_logged:
            self._log(gradient_norm)

    def end(self, finished: int) -> None:
        """The run is over; if it is before the step that was to be the last one, that is a whole run too."""
        self.progress = self.progress.model_copy(update={"total_steps": finished, "percent": 100, "remaining_seconds": 0})

    def evaluated(self, step: int, metrics: dict[str, float]) -> None:
        """Metrics on the evaluation data."""
        self._update(finished=step, eval_loss=metrics["loss"])
        if self._world.is_first:
            self.report(Evaluated(step=step, metrics=metrics))
            log.info("step %d: evaluation %s", step, " ".join(f"{name} {value:.4f}" for name, value in metrics.items()))

    def _update(self, *, finished: int, **changed: float | None) -> None:
        total = self.progress.total_steps
        seconds = sum(duration for _, duration in self._recent)
        speed = sum(tokens for tokens, _ in self._recent) / seconds if seconds else None
        left = round((total - finished) * seconds / len(self._recent)) if self._recent else None
        self.progress = self.progress.model_copy(
            update={
                "step": finished,
                "epoch": finished / self._steps_per_epoch,
                "percent": 100 * finished // total,
                "remaining_seconds": left,
                "tokens_per_second": speed,
                **{name: value for name, value in changed.items() if value is not None},
            }
        )

    def _log(self, gradient_norm: float) -> None:
        now = self.progress
        log.info(
            "step %d/%d (%d %%) loss %.4f gradient norm %.3g learning rate %.3g, %.0f tokens/s, %s left",
            now.step, now.total_steps, now.percent, now.loss, gradient_norm, now.learning_rate, now.tokens_per_second or 0,
            timedelta(seconds=now.remaining_seconds or 0),
        )  # fmt: skip
