"""A work queue of keys with rate-limited retries, as in Kubernetes controllers.

A key that is added several times while it waits is processed once. A key that is added while it is processed is processed
again afterwards, and never by two workers at the same time. A key whose processing fails is retried after growing delays.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
logger = logging.getLogger(__name__)

MAX_DOUBLINGS = 32  # keeps the retry delay finite before it is capped


class WorkQueue(Generic[Key]):
    """Calls a function for each key that is added. Delays are in seconds; they start at `initial_delay` and double."""

    def __init__(
        self,
        initial_delay: float = 0.2,
        max_delay: float = 30.0,
        on_error: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: dict[Key, float] = {}  # key -> time at which it was added
        self._processing: dict[Key, float] = {}  # key -> time at which its processing started
        self._dirty: set[Key] = set()  # keys that were added while they were being processed
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._initial_delay, self._max_delay = initial_delay, max_delay
        self._on_error, self._clock = on_error, clock

    def add(self, key: Key) -> None:
        """Process a key as soon as possible. A key that failed keeps its retry delay."""
        if key in self._failures and key in self._timers:
            return
        self._cancel_timer(key)
        if key in self._processing:
            self._dirty.add(key)
        elif key not in self._waiting:
            self._waiting[key] = self._clock()
            self._ready.put_nowait(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Process a key after a delay, or earlier if it is added again."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= due:
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_at(due, self._add_due, key)

    def forget(self, key: Key) -> None:
        """Drop the timer and the failure count of a key that no longer exists."""
        self._cancel_timer(key)
        self._failures.pop(key, None)

    def oldest_wait(self) -> float:
        """Seconds for which the oldest key has been waiting or processed; 0 if the queue is idle."""
        starts = [*self._waiting.values(), *self._processing.values()]
        if not starts:
            return 0.0
        return self._clock() - min(starts)

    def __len__(self) -> int:
        return len(self._waiting)

    async def run(self, workers: int, process: Callable[[Key], Awaitable[float | None]]) -> None:
        """Call `process` for every key until cancelled; it returns the seconds until the next call, or None."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work(process))

    async def _work(self, process: Callable[[Key], Awaitable[float | None]]) -> None:
        while True:
            key = await self._ready.get()
            self._processing[key] = self._clock()
            del self._waiting[key]
            try:
                delay = await process(key)
            except Exception:  # any error is retried, so that one job cannot stop the others
                delay = self._next_retry_delay(key)
                logger.exception("%s: the reconcile failed and is retried in %.1f s", key, delay)
                self._on_error()
            else:
                self._failures.pop(key, None)
            finally:
                del self._processing[key]
            if delay is not None:
                self.add_after(key, delay)
            if key in self._dirty:
                self._dirty.discard(key)
                self.add(key)

    def _next_retry_delay(self, key: Key) -> float:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return min(self._initial_delay * 2.0 ** min(failures, MAX_DOUBLINGS), self._max_delay)

    def _add_due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel_timer(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
