"""What preparing says of itself while it works: signs of life, and now and then a line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

LINE_SECONDS = 5.0
BATCH = 500  # rows between two looks at the clock
Row = TypeVar("Row")
log = logging.getLogger(__name__)


class Pulse:
    """Counts what is done. With each `batch` of it, it calls `alive`, and all few seconds logs and `tell`s how far it is."""

    def __init__(self, alive: Callable[[], None], tell: Callable[[str], None], batch: int = BATCH) -> None:
        self.alive = alive
        self._tell, self._batch = tell, batch
        self.begin("")

    def begin(self, work: str) -> None:
        """What is counted from now on, such as `rows encoded`."""
        self._work, self._done, self._started = work, 0, time.monotonic()
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
        text = f"{self._done:,} {self._work}"
        self._tell(text)
        log.info("data: %s, %.0f a second", text, self._done / (now - self._started))

    def over(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The same rows, each of them counted."""
        for row in rows:
            self()
            yield row
