"""Counts requests to stop the agent."""

from __future__ import annotations

import signal


class StopSignals:
    """The number of SIGTERM and SIGINT signals: the first requests a checkpoint and a stop, the second an immediate stop."""

    def __init__(self) -> None:
        self.count = 0

    def install(self) -> None:
        """Count signals from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        self.count += 1
