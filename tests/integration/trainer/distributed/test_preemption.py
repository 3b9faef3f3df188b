"""SIGTERM ends the process at once outside training and only sets a flag while training."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from finetune_trainer.distributed.preemption import Interrupted, PreemptionSignal


@pytest.fixture
def stop() -> Iterator[PreemptionSignal]:
    before = signal.getsignal(signal.SIGTERM)
    stop = PreemptionSignal()
    stop.install()
    yield stop
    signal.signal(signal.SIGTERM, before)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_interrupts_at_once_outside_training(stop: PreemptionSignal) -> None:
    stop.situation = "while the model was exported"
    with pytest.raises(Interrupted, match=r"^stopped while the model was exported$"):
        terminate()
    assert stop.requested


def test_library_error_handlers_do_not_catch_the_interrupt(stop: PreemptionSignal) -> None:
    def library() -> None:
        try:
            terminate()
        except Exception as error:
            raise ValueError("cannot load") from error

    with pytest.raises(Interrupted):
        library()


def test_only_sets_the_flag_while_deferred(stop: PreemptionSignal) -> None:
    with stop.deferred():
        terminate()
        terminate()
    assert stop.requested
    with pytest.raises(Interrupted):
        stop.raise_if_requested()


def test_a_second_signal_does_not_interrupt_the_shutdown(stop: PreemptionSignal) -> None:
    with pytest.raises(Interrupted):
        terminate()
    terminate()


def test_ignores_the_signal_after_the_outcome_is_decided(stop: PreemptionSignal) -> None:
    stop.ignore()
    terminate()
    assert not stop.requested
    stop.raise_if_requested()
