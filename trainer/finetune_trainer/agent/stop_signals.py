"""How often the agent was told to stop."""

from __future__ import annotations

import signal


class StopSignals:
    """How often the process was told to stop: once asks for a checkpoint, twice does not wait for it."""

    def __init__(self) -> None:
        self.count = 0

    def install(self) -> None:
        """Count SIGTERM and SIGINT from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.tell())

    def tell(self) -> None:
        """Told once more."""
        self.count += 1
