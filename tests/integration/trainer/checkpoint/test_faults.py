"""Faults while a checkpoint is stored, and damage to a stored one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import ranks, s3
from tests.support.checkpoints import (
    IDENTITY,
    Attempt,
    AttemptResult,
    break_disk_of_rank_1,
    close_gate,
    open_gate,
    repair_disk_of_rank_1,
    run_attempt,
    run_until_rank_1_dies,
)

from finetune_trainer.checkpoint.manifest import committed_steps
from finetune_trainer.storage.base import Credentials, Storage
from finetune_trainer.storage.registry import open_storage


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with checkpoints of steps 2 and 4, written by two ranks at stage 2."""
    folder = tmp_path_factory.mktemp("trained")
    results = ranks.run(run_attempt, 2, Attempt(f"file://{folder}/out", f"{folder}/work", stage=2, steps=4))
    assert results[0].stored == [2, 4]
    return folder / "out"


@pytest.fixture
def environment(s3_server: s3.Server) -> Iterator[Mapping[str, str]]:
    before = dict(os.environ)
    os.environ.update(s3_server.environment)
    yield s3_server.environment
    os.environ.clear()
    os.environ.update(before)


def flip_bit(storage: Storage, path: str) -> None:
    content = storage.get(path)
    storage.put(path, content[:-9] + bytes([content[-9] ^ 4]) + content[-8:])


def truncate(storage: Storage, path: str) -> None:
    storage.put(path, storage.get(path)[:-1])


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        pytest.param(flip_bit, "mp_rank_00_model_states.pt", id="a flipped bit in a common file"),
        pytest.param(truncate, "zero_pp_rank_1_mp_rank_00_optim_states.pt", id="a truncated shard of one rank"),
        pytest.param(Storage.delete, "rank-00001.pt", id="a missing file"),
    ],
)
def test_falls_back_from_damaged_checkpoint(
    tmp_path: Path, s3_server: s3.Server, environment: Mapping[str, str], trained: Path,
    damage: Callable[[Storage, str], None], file: str, request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    storage = open_storage(s3_server.uri(f"damage/{file}"), Credentials())
    storage.upload_folder(trained)
    (path,) = [
        entry.path for entry in storage.list("checkpoints/") if "step-00000004" in entry.path and entry.path.endswith(file)
    ]
    damage(storage, path)
    attempt = Attempt(storage.uri, f"{tmp_path}/work", environment, stage=2, steps=4, name="second")
    results = ranks.run(run_attempt, 2, attempt)
    assert [result.resumed for result in results] == [2, 2], "every rank uses the same checkpoint"
    assert results[0].stored == [4], "the step can be stored again"
    assert committed_steps(storage) == [4, 2]
    assert [entry.path for entry in storage.list("rejected")]


def test_rank_killed_during_upload_leaves_no_checkpoint(
    tmp_path: Path, s3_server: s3.Server, environment: Mapping[str, str]
) -> None:
    attempt = Attempt(s3_server.uri("killed"), f"{tmp_path}/work", environment, every=1, parts_timeout=1)
    processes, pipes = ranks.start(run_until_rank_1_dies, 2, attempt)
    (succeeded, result), _ = pipes[0].recv(), processes[0].join()
    processes[1].join()
    assert succeeded, result
    assert processes[1].exitcode == -9
    assert result.stored == [1]
    assert "lacks the part of rank 1" in result.failed[2]
    storage = open_storage(attempt.uri, Credentials())
    assert any("step-00000002" in entry.path for entry in storage.list("checkpoints")), "some files were uploaded"
    assert committed_steps(storage) == [1]
    second = replace(attempt, steps=3, every=3, keep=1, name="second")
    results: list[AttemptResult] = ranks.run(run_attempt, 2, second)
    assert [result.resumed for result in results] == [1, 1]
    assert {entry.path.split("/")[1][:13] for entry in storage.list("checkpoints")} == {"step-00000003"}, (
        "they are deleted later"
    )


def test_failed_write_of_one_rank_prevents_commit(tmp_path: Path, s3_server: s3.Server, environment: Mapping[str, str]) -> None:
    faults = {2: break_disk_of_rank_1, 3: repair_disk_of_rank_1}
    attempt = Attempt(s3_server.uri("disk"), f"{tmp_path}/work", environment, steps=3, every=1, faults=faults)
    results = ranks.run(run_attempt, 2, attempt)
    assert results[0].stored == [1, 3], "training continued and stored the next checkpoint"
    assert "rank 1: " in results[0].failed[2]
    assert "check the disk" in results[0].failed[2]
    assert not {entry.name for entry in (tmp_path / "work").iterdir()} - {"upload", "recent"}, "nothing else needs the disk"


def test_training_continues_during_storage_outage(tmp_path: Path, s3_server: s3.Server, environment: Mapping[str, str]) -> None:
    work_dir = tmp_path / "work"
    with s3.gate(s3_server, work_dir / "closed") as endpoint:
        attempt = Attempt(
            s3_server.uri("outage"), str(work_dir), {**environment, "AWS_ENDPOINT_URL": endpoint}, steps=8,
            is_deterministic=True, faults={3: close_gate, 8: open_gate}, retry_pauses=(1.0,) * 60,
        )  # fmt: skip
        (result,) = ranks.run(run_attempt, 1, attempt)
    assert result.stored == [2, 4, 8], "the pending checkpoint is stored later, and the skipped last one at the end"
    assert "step 4 is still being stored" in result.failed[6]


def test_reports_storage_outage_at_the_end(tmp_path: Path, s3_server: s3.Server, environment: Mapping[str, str]) -> None:
    work_dir = tmp_path / "work"
    with s3.gate(s3_server, work_dir / "closed") as endpoint:
        attempt = Attempt(
            s3_server.uri("gone"), str(work_dir), {**environment, "AWS_ENDPOINT_URL": endpoint}, steps=4, faults={3: close_gate}
        )
        with pytest.raises(AssertionError, match=r"StorageError: spec\.checkpoint\.storage: could not write s3://"):
            ranks.run(run_attempt, 1, attempt)
    assert committed_steps(open_storage(attempt.uri, Credentials())) == [2]


def test_rejects_storage_of_another_run_on_every_rank(tmp_path: Path, trained: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in trained.rglob("*"))
    other = {**IDENTITY, "training": {"seed": 2, "batchSize": 8}}
    with pytest.raises(AssertionError, match=r"(?s)rank 0:.*seed was 1 and is 2.*rank 1:.*seed was 1 and is 2"):
        ranks.run(run_attempt, 2, Attempt(f"file://{trained}", f"{tmp_path}/work", stage=2, identity=other))
    assert sorted((path, path.stat().st_mtime_ns) for path in trained.rglob("*")) == before
