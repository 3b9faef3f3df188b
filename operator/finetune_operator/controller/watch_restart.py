"""Watches survive error events: the operator lists and watches again, as the reflectors of Kubernetes' own clients do.

An API server reports by such an event that it cannot continue a watch, for example because etcd has no leader. kopf restarts a
watch only after 410 (Expired), and ends the operator after any other error. It has no setting for this, so its function is
replaced; tests/integration/operator/controller/test_api_faults.py fails if a new version of kopf calls another one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

from kopf._cogs.clients import watching

from finetune_operator.reconcile.backoff import doubled

logger = logging.getLogger(__name__)

Watch = Callable[..., AsyncIterator[Any]]
INITIAL_DELAY = 1.0  # seconds until a failed watch starts again, doubled after each failure
MAX_DELAY = 30.0


class RestartingWatch:
    """A watch of kopf that ends where the original one raises WatchingError; kopf starts every watch that ends again.

    The pauses before the end grow, and start over when a watch has ended without an error or lasted for longer than the longest
    pause. kopf begins every watch with a list, which does not show what was deleted since the watch before it: `on_relist` is
    called after each list but the first one of its kind.
    """

    def __init__(
        self,
        watch: Watch,
        on_relist: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._watch, self._on_relist, self._clock, self._sleep = watch, on_relist, clock, sleep
        self._listed: set[Any] = set()
        self._failures: dict[Any, int] = {}

    async def __call__(self, **arguments: Any) -> AsyncIterator[Any]:
        """The events of one watch."""
        key, started = (arguments.get("resource"), arguments.get("namespace")), self._clock()
        try:
            async with aclosing(cast(AsyncGenerator[Any, None], self._watch(**arguments))) as events:
                async for event in events:
                    if event is watching.Bookmark.LISTED:
                        if key in self._listed:
                            self._on_relist()
                        self._listed.add(key)
                    yield event
            self._failures.pop(key, None)
            return
        except watching.WatchingError as error:
            if self._clock() - started > MAX_DELAY:
                self._failures.pop(key, None)
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            delay = doubled(INITIAL_DELAY, MAX_DELAY, failures) * random.uniform(0.5, 1.0)
            logger.warning("the watch of %s starts again in %.1f s: %s", key[0], delay, error)
        await self._sleep(delay)


def restart_failed_watches(on_relist: Callable[[], None]) -> None:
    """Let all watches of kopf in this process survive error events; see RestartingWatch for `on_relist`."""
    watch = watching.continuous_watch
    original = watch._watch if isinstance(watch, RestartingWatch) else watch
    watching.continuous_watch = RestartingWatch(original, on_relist)
