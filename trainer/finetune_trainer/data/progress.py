"""What preparing says of itself while it works: signs of life, and now and then a line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

LINE_SECONDS = 5.0
BATCH = 500  # rows between two looks at the clock
Row = TypeVar("Row")
Tell = Callable[[str, float | None], None]
"""How far the work is, in words and, where that is known, as the share that is done."""
log = logging.getLogger(__name__)


class Pulse:
    """Counts what is done. With each `batch` of it, it calls `alive`, and all few seconds logs and `tell`s how far it is."""

    def __init__(self, alive: Callable[[], None], tell: Tell, batch: int = BATCH) -> None:
        self.alive = alive
        self._tell, self._batch = tell, batch
        self.begin("")

    def begin(self, work: str, total: int | None = None) -> None:
        """What is counted from now on, such as `rows encoded`, and how many these will be."""
        self._work, self._done, self._total, self._started = work, 0, total, time.monotonic()
        self._said = self._started

    def beside(self, work: str) -> Pulse:
        """One that counts what is done in between, a look at the clock for each."""
        other = Pulse(self.alive, self._tell, 1)
        other.begin(work)
        return other

    def __call__(self, done: int = 1) -> None:
        """So many more are done."""
        before, self._done = self._done, self._done + done
        if before // self._batch == self._done // self._batch:
            return
        self.alive()
        now = time.monotonic()
        if now - self._said < LINE_SECONDS:
            return
        self._said = now
        rate = self._done / (now - self._started)
        if not self._total:
            text, share, left = f"{self._done:,} {self._work}", None, ""
        else:
            share = min(self._done / self._total, 1.0)
            text = f"{self._done:,} of {self._total:,} {self._work} ({share:.0%})"
            left = f", {(self._total - self._done) / rate:.0f} s left"
        self._tell(text, share)
        log.info("data: %s, %.0f a second%s", text, rate, left)

    def over(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The same rows, each of them counted."""
        for row in rows:
            self()
            yield row
