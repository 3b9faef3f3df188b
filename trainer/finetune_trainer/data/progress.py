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
    """Counts rows. All few hundred of them it calls `alive`, and all few seconds logs and `tell`s how far it is."""

    def __init__(self, alive: Callable[[], None], tell: Callable[[str], None]) -> None:
        self.alive = alive
        self._tell = tell
        self.begin("")

    def begin(self, work: str) -> None:
        """What is done with rows from now on, such as `encoded`."""
        self._work, self._rows, self._started = work, 0, time.monotonic()
        self._said = self._started

    def __call__(self, rows: int = 1) -> None:
        """So many rows more are done."""
        before, self._rows = self._rows, self._rows + rows
        if before // BATCH == self._rows // BATCH:
            return
        self.alive()
        now = time.monotonic()
        if now - self._said < LINE_SECONDS:
            return
        self._said = now
        text = f"{self._rows:,} rows {self._work}"
        self._tell(text)
        log.info("data: %s, %.0f a second", text, self._rows / (now - self._started))

    def over(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The same rows, each of them counted."""
        for row in rows:
            self()
            yield row
