"""A work queue of keys with rate-limited retries, as in Kubernetes controllers.

A key that is added several times while it waits is processed once. A key that is added while it is processed is processed
again afterwards, and never by two workers at the same time. A key whose processing fails is retried after growing, randomized
delays.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from finetune_operator.reconcile.backoff import doubled

Key = TypeVar("Key", bound=Hashable)
logger = logging.getLogger(__name__)

JITTER = 0.25  # share of a retry delay that is added at random, so that keys that failed together are not retried together


class OutdatedError(Exception):
    """A key was processed with outdated data, so that its result was refused.

    The key is retried after a growing delay like any other failure. But it waits only for news about itself, so adding it
    again ends the delay.
    """


class WorkQueue(Generic[Key]):
    """Calls a function for each key that is added.

    Delays are in seconds; they start at `initial_delay`, double and end at `max_delay`. `minimum_delay` returns the delay that
    an error itself asks for, or 0. `expected_errors` are logged without a traceback.
    """

    def __init__(
        self,
        initial_delay: float = 0.2,
        max_delay: float = 60.0,
        on_error: Callable[[], None] = lambda: None,
        minimum_delay: Callable[[Exception], float] = lambda _error: 0.0,
        expected_errors: tuple[type[Exception], ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: dict[Key, float] = {}  # key -> time at which it was added
        self._processing: dict[Key, float] = {}  # key -> time at which its processing started
        self._dirty: set[Key] = set()  # keys that were added while they were being processed
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._failing: set[Key] = set()  # keys whose last failure is not cured by news about them
        self._initial_delay, self._max_delay = initial_delay, max_delay
        self._on_error, self._minimum_delay, self._expected_errors = on_error, minimum_delay, expected_errors
        self._clock = clock

    def add(self, key: Key) -> None:
        """Process a key as soon as possible. A key that failed keeps its retry delay, unless its data was outdated."""
        if key in self._failing and key in self._timers:
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
        self._reset_failures(key)

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
            except OutdatedError as error:
                self._failing.discard(key)
                delay = self._next_retry_delay(key)
                logger.info("%s: the reconcile is repeated in %.1f s: %s", key, delay, error)
            except Exception as error:  # any error is retried, so that one job cannot stop the others
                self._failing.add(key)
                delay = max(self._next_retry_delay(key), self._minimum_delay(error))
                is_expected = isinstance(error, self._expected_errors)
                logger.error(
                    "%s: the reconcile failed and is retried in %.1f s: %r", key, delay, error, exc_info=not is_expected
                )
                self._on_error()
            else:
                self._reset_failures(key)
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
        return doubled(self._initial_delay, self._max_delay, failures + 1) * random.uniform(1, 1 + JITTER)

    def _reset_failures(self, key: Key) -> None:
        self._failures.pop(key, None)
        self._failing.discard(key)

    def _add_due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel_timer(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
