"""SIGTERM: at once where nothing is lost by it, at the next step that all ranks agree on while training."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from finetune_trainer.protocol.outcome import Reason, TrainerError


class Preempted(TrainerError):
    """Told to stop, with everything stored."""

    reason = Reason.PREEMPTED


class PreemptedUnsaved(TrainerError):
    """Told to stop, but the checkpoint could not be stored."""

    reason = Reason.PREEMPTED_UNSAVED


class Interrupted(BaseException):
    """Raised by the signal where it strikes; no Exception, since libraries turn those into errors of their own."""

    reason = Reason.PREEMPTED


class Stop:
    """Whether this process was told to stop.

    Outside of `deferred` the signal raises `Interrupted` where it strikes: before the first and after the last step there is
    nothing to save, and a restart repeats what was cut off.
    """

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False

    def listen(self) -> None:
        """Catch SIGTERM from here on; only the main thread may."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def ignore(self) -> None:
        """From here on the signal comes too late to change anything."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def check(self) -> None:
        """Raise `Interrupted` if the signal came."""
        if self.requested:
            raise Interrupted("told to stop outside of training; no step was lost")

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, the signal only raises the flag."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        repeated, self.requested = self.requested, True
        if not self._deferred and not repeated:
            self.check()
