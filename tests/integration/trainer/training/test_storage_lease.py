"""A process that holds its storage for a run ends when another run takes the storage over, and only then."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from tests.support.waiting import wait_for

from finetune_trainer.checkpoint.lease_keeper import LEASE, LeaseTimes
from finetune_trainer.protocol.events import Ended, Event
from finetune_trainer.protocol.outcome import EXIT_POLICIES, ConfigurationError, Reason
from finetune_trainer.storage.base import Credentials, Storage
from finetune_trainer.storage.registry import open_storage
from finetune_trainer.training.launch_context import LaunchContext
from finetune_trainer.training.storage_lease import hold_storage

TIMES = LeaseTimes(beat=0.1, stale=1.5, poll=0.05)


def launch(folder: Path, run_id: str) -> LaunchContext:
    return LaunchContext(
        rank=0, world_size=1, local_rank=0, processes_per_node=1, master="localhost:1", attempt="a", work_dir=folder,
        cache_dir=folder, credentials=Credentials(), job=f"team/{run_id}", run_id=run_id,
    )  # fmt: skip


def storage_in(folder: Path) -> Storage:
    return open_storage(f"file://{folder}/out", Credentials())


def hold_for_a_minute(folder: Path, run_id: str) -> None:
    """Hold the storage, and write the message of the outcome that the process ends with."""

    def report(event: Event) -> None:
        if isinstance(event, Ended):
            (folder / "outcome").write_text(event.outcome.message)

    with hold_storage(storage_in(folder), launch(folder, run_id), report, TIMES):
        (folder / "holding").touch()
        time.sleep(60)


@pytest.fixture
def first(tmp_path: Path) -> Iterator[BaseProcess]:
    """A process of the run `first` that holds the storage."""
    process = multiprocessing.get_context("spawn").Process(target=hold_for_a_minute, args=(tmp_path, "first"))
    process.start()
    wait_for((tmp_path / "holding").exists, "the first run")
    yield process
    process.kill()
    process.join()


def hold(folder: Path, run_id: str) -> list[Event]:
    """Take the storage and release it; returns the events until it was taken."""
    events: list[Event] = []
    with hold_storage(storage_in(folder), launch(folder, run_id), events.append, TIMES):
        return list(events)


def test_a_second_run_is_refused_and_a_killed_run_starts_again_at_once(first: BaseProcess, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"is in use by the run team/first on .* \(process \d+\), which is alive"):
        hold(tmp_path, "second")
    assert first.is_alive()
    first.kill()
    first.join()
    assert hold(tmp_path, "first") == [], "it does not wait"
    assert storage_in(tmp_path).list() == []


def test_another_run_waits_until_a_killed_one_is_stale(first: BaseProcess, tmp_path: Path) -> None:
    first.kill()
    first.join()
    started = time.monotonic()
    events = hold(tmp_path, "second")
    assert time.monotonic() - started >= TIMES.stale
    assert events[0].event == "alive"
    assert (events[0].detail or "").startswith("the run team/first on ")


def test_a_frozen_run_ends_when_it_wakes_up_without_its_storage(first: BaseProcess, tmp_path: Path) -> None:
    assert first.pid
    os.kill(first.pid, signal.SIGSTOP)
    with hold_storage(storage_in(tmp_path), launch(tmp_path, "second"), lambda event: None, TIMES):
        os.kill(first.pid, signal.SIGCONT)
        first.join(10)
        assert first.exitcode == EXIT_POLICIES[Reason.INVALID_CONFIGURATION].exit_code
        assert "the run team/second on " in (tmp_path / "outcome").read_text()
        assert storage_in(tmp_path).exists(LEASE)
