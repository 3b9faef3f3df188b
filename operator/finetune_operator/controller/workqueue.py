"""A queue of keys to look at, as controllers have it.

A key that is added while it waits is looked at once; one that is added while it is being worked on is looked at again
afterwards, and never by two workers simultaneously. Errors put a key back with growing pauses.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
logger = logging.getLogger(__name__)


class WorkQueue(Generic[Key]):
    """Keys in, calls of one function out. Pauses are in seconds."""

    def __init__(
        self,
        first_pause: float = 0.2,
        longest_pause: float = 30.0,
        on_error: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: dict[Key, float] = {}  # key -> since when it should be looked at
        self._working: dict[Key, float] = {}
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._first_pause, self._longest_pause = first_pause, longest_pause
        self._on_error, self._clock = on_error, clock

    def add(self, key: Key) -> None:
        """Look at a key as soon as possible; one that failed keeps its pause."""
        if key in self._failures and key in self._timers:
            return
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = self._clock()
            self._ready.put_nowait(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Look at a key later, unless something makes it due earlier."""
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        if timer := self._timers.get(key):
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(when, self._due, key)

    def forget(self, key: Key) -> None:
        """A key has ceased to exist: drop its timer and its failures."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        self._failures.pop(key, None)

    def stalled_for(self) -> float:
        """How long the key has been waiting or worked on that has been so the longest."""
        starts = [*self._waiting.values(), *self._working.values()]
        return self._clock() - min(starts) if starts else 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    async def run(self, workers: int, work: Callable[[Key], Awaitable[float | None]]) -> None:
        """Call `work` for every key until cancelled; what it returns, if anything, is when to look again."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._worker(work))

    async def _worker(self, work: Callable[[Key], Awaitable[float | None]]) -> None:
        while True:
            key = await self._ready.get()
            self._working[key] = self._clock()
            del self._waiting[key]
            try:
                again = await work(key)
            except Exception:  # whatever it was, the key is looked at again and the others are not kept waiting
                again = self._pause(key)
                logger.exception("%s: this pass failed, the next one is in %.1f s", key, again)
                self._on_error()
            else:
                self._failures.pop(key, None)
            finally:
                del self._working[key]
            if again is not None:
                self.add_after(key, again)
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    def _pause(self, key: Key) -> float:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return min(self._first_pause * 2.0 ** min(failures, 32), self._longest_pause)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)
