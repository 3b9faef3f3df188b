"""Two runs on one storage: one of them holds its lease, in S3 and in folders."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import s3
from tests.support.waiting import wait_for

from finetune_trainer.checkpoint.lease_keeper import LEASE, LeaseKeeper, LeaseTimes
from finetune_trainer.protocol.outcome import ConfigurationError, StorageError, TrainerError
from finetune_trainer.storage.base import Credentials, Storage
from finetune_trainer.storage.registry import open_storage

TIMES = LeaseTimes(beat=0.05, stale=0.6, poll=0.02)


@pytest.fixture(params=["s3", "file"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> Storage:
    for key, value in s3_server.environment.items():
        monkeypatch.setenv(key, value)
    uri = s3_server.uri(f"lease/{request.node.name}") if request.param == "s3" else f"file://{tmp_path}/out"
    return open_storage(uri, Credentials())


class Run:
    """One process of a run."""

    def __init__(self, storage: Storage, owner: str, times: LeaseTimes = TIMES) -> None:
        self.lost = threading.Event()
        self.error: TrainerError | None = None
        self.waited: list[str] = []
        self.keeper = LeaseKeeper(storage, owner, f"the run {owner}", self._on_lost, times)

    def start(self) -> Run:
        self.keeper.acquire(self.waited.append)
        return self

    def _on_lost(self, error: TrainerError) -> None:
        self.error = error
        self.lost.set()


@pytest.fixture
def first(storage: Storage) -> Iterator[Run]:
    run = Run(storage, "first").start()
    yield run
    run.keeper.release()


def test_refuses_a_second_run_while_the_first_lives(storage: Storage, first: Run) -> None:
    with pytest.raises(ConfigurationError, match=r"is in use by the run first, which is alive: wait until it ends"):
        Run(storage, "second").start()
    assert not first.lost.wait(0.2)


def test_a_released_storage_is_free_and_clean(storage: Storage, first: Run) -> None:
    first.keeper.release()
    assert storage.list() == []
    second = Run(storage, "second").start()
    assert second.waited == []
    second.keeper.release()


def test_a_dead_run_is_waited_for_and_notices_if_it_lives_again(storage: Storage) -> None:
    frozen = Run(storage, "first", LeaseTimes(beat=1.5)).start()  # no beat before the lease is stale
    second = Run(storage, "second").start()
    assert second.waited
    assert second.waited[0].startswith(f"the run first has not released {storage.uri}: waiting up to 1 s")
    assert frozen.lost.wait(10)
    assert isinstance(frozen.error, ConfigurationError)
    assert str(frozen.error).startswith("spec.checkpoint.storage: the run second has taken over")
    frozen.keeper.release()
    assert not second.lost.wait(0.2), "the end of the first run does not release the lease of the second"
    second.keeper.release()


def test_a_restarted_run_takes_its_lease_at_once(storage: Storage, first: Run) -> None:
    restarted = Run(storage, "first").start()
    assert restarted.waited == []
    assert first.lost.wait(10)
    assert isinstance(first.error, StorageError)
    restarted.keeper.release()


def test_a_deleted_lease_is_written_again(storage: Storage, first: Run) -> None:
    storage.delete(LEASE)
    wait_for(lambda: storage.exists(LEASE), "the lease")
    with pytest.raises(ConfigurationError, match="is in use by the run first"):
        Run(storage, "second").start()


def test_one_of_many_runs_gets_a_free_lease(storage: Storage) -> None:
    runs = [Run(storage, str(number)) for number in range(6)]
    won: list[Run] = []

    def start(run: Run) -> None:
        with contextlib.suppress(ConfigurationError):
            won.append(run.start())

    threads = [threading.Thread(target=start, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert not won[0].lost.wait(0.2)
    won[0].keeper.release()


def test_an_outage_of_the_storage_does_not_end_the_run(
    s3_server: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3.gate(s3_server, tmp_path / "closed") as endpoint:
        for key, value in (s3_server.environment | {"AWS_ENDPOINT_URL": endpoint}).items():
            monkeypatch.setenv(key, value)
        run = Run(open_storage(s3_server.uri("lease/outage"), Credentials()), "first").start()
        (tmp_path / "closed").touch()
        assert not run.lost.wait(1.5)
        (tmp_path / "closed").unlink()
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.environment["AWS_ENDPOINT_URL"])
        storage = open_storage(s3_server.uri("lease/outage"), Credentials())
        with pytest.raises(ConfigurationError, match="is in use by the run first"):
            Run(storage, "second", LeaseTimes(beat=0.05, stale=30, poll=0.05)).start()
        assert not run.lost.is_set()
        run.keeper.release()
