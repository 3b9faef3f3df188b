"""Measures the part of a step that depends on this rank alone: its forward passes.

A backward pass reduces gradients while it runs, so that its duration includes waiting for other ranks; a slow rank is as slow
in its forward passes. With ZeRO-3, and in losses that gather the rows of all ranks, a forward pass waits for the others too:
then all ranks measure about the same.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch


class ComputeTimer:
    """Adds up the durations of the passes of a step, on a GPU by its own clock."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def measure(self) -> Iterator[None]:
        """Measure the work within this context."""
        if self._device.type != "cuda":
            started = time.monotonic()
            yield
            self._seconds += time.monotonic() - started
            return
        begin, end = self._event(), self._event()
        begin.record()
        yield
        end.record()
        self._events.append((begin, end))

    def take(self) -> float:
        """The seconds measured since the last call. The GPU must have finished that work, which reading its result ensures."""
        milliseconds = [float(begin.elapsed_time(end)) for begin, end in self._events]
        seconds = self._seconds + sum(milliseconds) / 1000
        self._seconds, self._events = 0.0, []
        return seconds

    def _event(self) -> torch.cuda.Event:
        return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch has no annotation here
