"""SIGTERM strikes at once outside of training, and only raises a flag within."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from finetune_trainer.distributed.preemption import Interrupted, Stop


@pytest.fixture
def stop() -> Iterator[Stop]:
    before = signal.getsignal(signal.SIGTERM)
    stop = Stop()
    stop.listen()
    yield stop
    signal.signal(signal.SIGTERM, before)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_at_once(stop: Stop) -> None:
    with pytest.raises(Interrupted):
        terminate()
    assert stop.requested


def test_libraries_do_not_take_it_for_an_error_of_theirs(stop: Stop) -> None:
    def library() -> None:
        try:
            terminate()
        except Exception as error:
            raise ValueError("cannot load") from error

    with pytest.raises(Interrupted):
        library()


def test_deferred(stop: Stop) -> None:
    with stop.deferred():
        terminate()
        terminate()
    assert stop.requested
    with pytest.raises(Interrupted):
        stop.check()


def test_a_second_signal_does_not_disturb_the_way_out(stop: Stop) -> None:
    with pytest.raises(Interrupted):
        terminate()
    terminate()


def test_too_late(stop: Stop) -> None:
    stop.ignore()
    terminate()
    assert not stop.requested
    stop.check()
