"""SIGTERM: ends the process at once outside training, and after the current step while training."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from finetune_trainer.protocol.outcome import Reason, TrainerError


class Preempted(TrainerError):
    """The run was preempted and its checkpoint is stored."""

    reason = Reason.PREEMPTED


class PreemptedUnsaved(TrainerError):
    """The run was preempted and its checkpoint could not be stored."""

    reason = Reason.PREEMPTED_UNSAVED


class Interrupted(BaseException):
    """SIGTERM arrived outside training. Not an Exception, because libraries convert those into errors of their own."""

    reason = Reason.PREEMPTED


class PreemptionSignal:
    """Handles SIGTERM; `requested` is True once it has arrived.

    Outside `deferred` the handler raises `Interrupted` wherever the main thread is: before the first step and after the last
    one there is nothing to save, and a restart repeats the interrupted work.
    """

    def __init__(self) -> None:
        self.requested = False
        self.situation = "before the first step"
        """What the run was doing outside training, and what the next run does, completing the sentence "stopped ..."."""
        self._deferred = False

    def install(self) -> None:
        """Handle SIGTERM from now on; only the main thread may call this."""
        signal.signal(signal.SIGTERM, self._handle)

    def ignore(self) -> None:
        """Ignore SIGTERM from now on, because the outcome is decided."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def raise_if_requested(self) -> None:
        """Raise `Interrupted` if SIGTERM has arrived."""
        if self.requested:
            raise Interrupted(f"stopped {self.situation}")

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this context SIGTERM only sets `requested`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_repeated, self.requested = self.requested, True
        if not self._deferred and not is_repeated:
            self.raise_if_requested()
