"""Which work counts as a sign of life."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from finetune_trainer.protocol import heartbeat
from finetune_trainer.protocol.heartbeat import BackgroundWork


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The times of the heartbeats of this process."""
    monkeypatch.setattr(heartbeat, "MIN_SECONDS", 0.05)
    monkeypatch.setattr(heartbeat, "BUSY_SECONDS", 0.1)
    beats: list[float] = []
    with heartbeat.relayed_to(lambda: beats.append(time.monotonic())):
        yield beats


def test_many_heartbeats_are_sent_as_few(beats: list[float]) -> None:
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        heartbeat.beat()
    assert 2 <= len(beats) <= 7


def test_a_new_listener_gets_the_first_heartbeat(beats: list[float]) -> None:
    heartbeat.beat()
    heard: list[int] = []
    with heartbeat.relayed_to(lambda: heard.append(1)):
        heartbeat.beat()
        heartbeat.beat()
    assert heard == [1]
    assert len(beats) == 2


def test_a_background_thread_counts_only_for_who_waits_for_it(beats: list[float]) -> None:
    work, done = BackgroundWork(), threading.Event()

    def upload() -> None:
        with work.running():
            for _ in range(10):
                time.sleep(0.05)
                heartbeat.beat()
        done.set()

    thread = threading.Thread(target=upload)
    thread.start()
    time.sleep(0.2)
    assert beats == []
    work.wait(done)
    assert beats
    thread.join()


def test_a_silent_thread_gives_no_sign_of_life_to_who_waits(beats: list[float]) -> None:
    done = threading.Event()
    threading.Timer(0.3, done.set).start()
    BackgroundWork().wait(done)
    assert beats == []


def test_a_wait_that_ends_by_itself_is_alive(beats: list[float]) -> None:
    started = time.monotonic()
    heartbeat.wait_bounded(threading.Event(), 0.3)
    assert beats
    assert 0.3 <= time.monotonic() - started < 2


def test_a_call_that_computes_is_alive_and_one_that_blocks_is_not(beats: list[float]) -> None:
    with heartbeat.while_busy():
        time.sleep(0.4)
    assert beats == []
    with heartbeat.while_busy():
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            pass
    assert beats
