"""Progress of data preparation: a heartbeat for each item, and a progress line every few seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from finetune_trainer.protocol import heartbeat

REPORT_SECONDS = 5.0
Item = TypeVar("Item")
ReportProgress = Callable[[str, float | None], None]
"""Receives the progress in words and, where the total is known, the finished share between 0 and 1."""
log = logging.getLogger(__name__)


class ProgressTracker:
    """Counts finished items, and logs and reports progress every few seconds."""

    def __init__(self, report: ReportProgress) -> None:
        self._report = report
        self.start("")

    def start(self, activity: str, total: int | None = None) -> None:
        """Begin to count the items of an activity, such as `rows encoded`; `total` is their number, if known."""
        self._activity, self._total, self._done = activity, total, 0
        self._started = self._reported = time.monotonic()

    def subtask(self, activity: str) -> ProgressTracker:
        """A tracker for items of another kind within this activity."""
        tracker = ProgressTracker(self._report)
        tracker.start(activity)
        return tracker

    def advance(self, count: int = 1) -> None:
        """Count `count` more finished items."""
        self._done += count
        heartbeat.beat()
        now = time.monotonic()
        if now - self._reported < REPORT_SECONDS:
            return
        self._reported = now
        self._report_progress(rate=self._done / (now - self._started))

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, each counted when it is taken."""
        for item in items:
            self.advance()
            yield item

    def _report_progress(self, rate: float) -> None:
        share, remaining = None, ""
        text = f"{self._done:,} {self._activity}"
        if self._total:
            share = min(self._done / self._total, 1.0)
            text = f"{self._done:,} of {self._total:,} {self._activity} ({share:.0%})"
            remaining = f", {(self._total - self._done) / rate:.0f} s left"
        self._report(text, share)
        log.info("data: %s, %.0f a second%s", text, rate, remaining)
