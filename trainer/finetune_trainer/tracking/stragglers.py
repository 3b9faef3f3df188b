"""Names ranks that are slower than the others and make them wait.

Compared is the time of a rank's own work, data and forward passes, because the durations of whole steps are equal: fast ranks
wait in collectives for slow ones. Steps are grouped into intervals of at least a second, and within an interval each rank is
compared with the median of the other ranks, so that whatever slows all of them down cancels out. A rank is named if over the
last intervals

- the median of its ratios is at least `NAMED_RATIO`, and three quarters of them are at least `STEADY_RATIO`;
- its excess time is at least `MIN_SHARE` of a step: otherwise the steps would not become shorter without it.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from finetune_trainer.protocol.outcome import MAX_STRAGGLERS, Straggler

INTERVALS = 20
INTERVAL_SECONDS = 1.0  # at least; an interval has at least one step
NAMED_RATIO = 1.5
STEADY_RATIO = 1.25
RELEASED_RATIO = 1.3  # a named rank remains named down to this ratio
MIN_SHARE = 0.05


class _Interval(NamedTuple):
    """Per rank, the mean time of its own work in a step and its ratio to the other ranks; and the mean duration of a step."""

    ratios: list[float]
    excess: list[float]
    step_seconds: float


class StragglerDetector:
    """Watches the ranks' times of one process group."""

    def __init__(self, processes_per_node: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._processes_per_node = processes_per_node
        self._clock = clock
        self._intervals: deque[_Interval] = deque(maxlen=INTERVALS)
        self._started_at: float | None = None
        self._steps = 0
        self._sums: list[float] = []
        self._step_seconds = 0.0
        self._named: list[int] | None = None

    def observe(self, rank_seconds: Sequence[float], step_seconds: float) -> list[Straggler] | None:
        """Add one step: the seconds of every rank's own work, and of the whole step.

        Returns the stragglers, the slowest first, when they are known for the first time and whenever they change, else None.
        """
        now = self._clock()
        if self._started_at is None:
            self._started_at, self._sums = now, [0.0] * len(rank_seconds)
        self._steps += 1
        self._step_seconds += step_seconds
        self._sums = [total + seconds for total, seconds in zip(self._sums, rank_seconds, strict=True)]
        if len(rank_seconds) < 2 or now - self._started_at < INTERVAL_SECONDS:
            return None
        self._intervals.append(_interval([total / self._steps for total in self._sums], self._step_seconds / self._steps))
        self._started_at, self._steps, self._step_seconds = now, 0, 0.0
        self._sums = [0.0] * len(rank_seconds)
        return self._judge() if len(self._intervals) == INTERVALS else None

    def _judge(self) -> list[Straggler] | None:
        ranks = range(len(self._sums))
        ratios = {rank: sorted(interval.ratios[rank] for interval in self._intervals) for rank in ranks}
        slow = [rank for rank in ranks if self._is_slow(rank, ratios[rank])]
        if slow == self._named:
            return None
        self._named = slow
        stragglers = [
            Straggler(rank=rank, node=rank // self._processes_per_node, ratio=round(statistics.median(ratios[rank]), 2))
            for rank in slow
        ]
        return sorted(stragglers, key=lambda straggler: -straggler.ratio)[:MAX_STRAGGLERS]

    def _is_slow(self, rank: int, ratios: list[float]) -> bool:
        if self._named is not None and rank in self._named:
            return statistics.median(ratios) >= RELEASED_RATIO
        excess = statistics.median(interval.excess[rank] for interval in self._intervals)
        step_seconds = statistics.median(interval.step_seconds for interval in self._intervals)
        return (
            statistics.median(ratios) >= NAMED_RATIO
            and ratios[len(ratios) // 4] >= STEADY_RATIO
            and excess >= MIN_SHARE * step_seconds
        )


def _interval(seconds: list[float], step_seconds: float) -> _Interval:
    others = _medians_of_others(seconds)
    ratios = [own / other if other > 0 else 1.0 for own, other in zip(seconds, others, strict=True)]
    excess = [own - other for own, other in zip(seconds, others, strict=True)]
    return _Interval(ratios, excess, step_seconds)


def _medians_of_others(values: list[float]) -> list[float]:
    """For each value the median of all others; needs at least two values."""
    order = sorted(range(len(values)), key=values.__getitem__)
    place = {index: position for position, index in enumerate(order)}
    count = len(values) - 1

    def other(index: int, position: int) -> float:
        """The value at a position of the sorted list without `index`."""
        return values[order[position + (position >= place[index])]]

    return [(other(index, (count - 1) // 2) + other(index, count // 2)) / 2 for index in range(len(values))]
