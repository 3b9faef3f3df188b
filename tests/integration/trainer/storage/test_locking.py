"""Signs of life of processes that wait for the work of another one."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import filelock
import pytest

from finetune_trainer.protocol import heartbeat
from finetune_trainer.protocol.heartbeat import BackgroundWork
from finetune_trainer.storage import locking


def test_the_holder_shows_its_heartbeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "MIN_SECONDS", 0.0)
    pulse = tmp_path / "result.pulse"
    with locking.exclusive(tmp_path / "result"):
        assert not pulse.exists()
        heartbeat.beat()
        assert pulse.exists()
    assert not pulse.exists()


def test_a_waiting_process_lives_as_long_as_the_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_WAIT_SECONDS", 0.05)
    waiting = BackgroundWork()

    def wait_for_result() -> None:
        with waiting.running(), locking.exclusive(tmp_path / "result"):
            pass

    pulse = tmp_path / "result.pulse"
    with filelock.FileLock(f"{tmp_path}/result.lock"):  # held by a process that works
        thread = threading.Thread(target=wait_for_result)
        thread.start()
        for number in range(1, 4):
            time.sleep(0.3)
            pulse.touch()
            os.utime(pulse, (number, number))
            time.sleep(0.3)
            assert 1 <= waiting.beats <= 2 * number
        beats = waiting.beats
        time.sleep(0.4)
        assert waiting.beats == beats  # the holder hangs
    thread.join()
