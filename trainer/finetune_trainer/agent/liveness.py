"""Whether a rank hangs: a pure function of its events, of the other ranks' signs of life, and of the time.

A rank prepares its data alone. From the moment it joins the process group it may wait for any other rank at any time, so its
silence means nothing as long as another rank of the job gives signs of life: ranks that wait cannot outlive the work of a rank
that hangs, which keeps a hang from being hidden for long.
"""

from __future__ import annotations

import math
from collections import deque

from finetune_trainer.config.hang_limits import HangLimits
from finetune_trainer.protocol.events import Activity, Alive, Event, StepTime

RECENT_STEPS = 100
QUANTILE = 0.95
FACTOR = 10
_ALONE: tuple[Activity, ...] = ("Starting", "Preparing")
_BEFORE_TRAINING: tuple[Activity, ...] = (*_ALONE, "Loading")
_FIELDS: dict[Activity, str] = {"Training": "step", "Evaluating": "evaluation", "Saving": "save", "Exporting": "save"}


class Liveness:
    """The signs of life of one rank. Times are seconds of a monotonic clock."""

    def __init__(self, limits: HangLimits, now: float) -> None:
        self.last_heartbeat = now
        self.activity: Activity = "Starting"
        self._limits = limits
        self._step_limit: float = limits.step_seconds
        self._longest_silence = 0.0  # within the current step
        self._silences: deque[float] = deque(maxlen=RECENT_STEPS)  # the longest one within each recent step

    def observe(self, event: Event, now: float) -> None:
        """Count an event as a sign of life, and learn from the silence before it."""
        silence, self.last_heartbeat = now - self.last_heartbeat, now
        if self.activity == "Training":
            self._longest_silence = max(self._longest_silence, silence)
        match event:
            case Alive() if event.activity != self.activity:
                self.activity = event.activity
                self._longest_silence = 0.0
            case StepTime():
                self.activity = "Training"
                self._silences.append(self._longest_silence)
                self._longest_silence = 0.0
                self._step_limit = max(self._limits.step_seconds, FACTOR * _quantile(self._silences))

    def discount(self, seconds: float) -> None:
        """Do not count this time as silence, because the agent could not see signs of life in it."""
        self.last_heartbeat += seconds

    @property
    def has_trained(self) -> bool:
        """Whether the rank has begun to train, so that it may have steps to store."""
        return self.activity not in _BEFORE_TRAINING

    @property
    def limit(self) -> float:
        """Seconds of silence after which the rank hangs in its current activity."""
        configured: int = getattr(self._limits, self.limit_field)
        return max(configured, self._step_limit) if self.activity == "Training" else configured

    @property
    def limit_field(self) -> str:
        """The field of the limits that applies; the first step of a process compiles kernels, which is part of its start."""
        phase = _FIELDS.get(self.activity, "start")
        is_first_step = self.activity == "Training" and not self._silences
        return "start_seconds" if is_first_step else f"{phase}_seconds"

    def silence(self, now: float, peers_alive_at: float) -> float:
        """Seconds since the last sign of life that counts; `peers_alive_at` is when any other rank gave its last one."""
        if self.activity in _ALONE:
            return now - self.last_heartbeat
        return now - max(self.last_heartbeat, peers_alive_at)

    def hangs(self, now: float, peers_alive_at: float) -> bool:
        """Whether the silence has reached the limit."""
        return self.silence(now, peers_alive_at) >= self.limit


def _quantile(values: deque[float]) -> float:
    return sorted(values)[math.ceil(QUANTILE * len(values)) - 1]
