"""What goes wrong on the way to a checkpoint, or with one that is stored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import ranks, s3
from tests.support.checkpoints import (
    IDENTITY,
    Life,
    Lived,
    break_disk_of_rank_1,
    close_gate,
    live,
    live_beside_the_dying,
    mend_disk_of_rank_1,
    open_gate,
)

from finetune_trainer.checkpoint.manifest import committed_steps
from finetune_trainer.storage.base import Credentials, Storage


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with checkpoints of steps 2 and 4, of two ranks at stage 2."""
    folder = tmp_path_factory.mktemp("trained")
    lived = ranks.run(live, 2, Life(f"file://{folder}/out", f"{folder}/work", stage=2, steps=4))
    assert lived[0].stored == [2, 4]
    return folder / "out"


@pytest.fixture
def environment(s3_server: s3.Server) -> Iterator[Mapping[str, str]]:
    before = dict(os.environ)
    os.environ.update(s3_server.environment)
    yield s3_server.environment
    os.environ.clear()
    os.environ.update(before)


def flip(storage: Storage, path: str) -> None:
    content = storage.get(path)
    storage.put(path, content[:-9] + bytes([content[-9] ^ 4]) + content[-8:])


def truncate(storage: Storage, path: str) -> None:
    storage.put(path, storage.get(path)[:-1])


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        pytest.param(flip, "mp_rank_00_model_states.pt", id="a bit flipped in what all ranks read"),
        pytest.param(truncate, "zero_pp_rank_1_mp_rank_00_optim_states.pt", id="a shard of one rank truncated"),
        pytest.param(Storage.delete, "rank-00001.pt", id="a file missing"),
    ],
)
def test_a_damaged_checkpoint_is_not_used(
    tmp_path: Path, s3_server: s3.Server, environment: Mapping[str, str], trained: Path,
    damage: Callable[[Storage, str], None], file: str, request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    storage = Storage.open(s3_server.uri(f"damage/{file}"), Credentials())
    storage.upload_folder(trained)
    (path,) = [
        entry.path for entry in storage.list("checkpoints/") if "step-00000004" in entry.path and entry.path.endswith(file)
    ]
    damage(storage, path)
    lived = ranks.run(live, 2, Life(storage.uri, f"{tmp_path}/work", environment, stage=2, steps=4, attempt="second"))
    assert [rank.resumed for rank in lived] == [2, 2], "every rank takes the same one, whoever found the damage"
    assert lived[0].stored == [4], "the step can be stored anew"
    assert committed_steps(storage) == [4, 2]
    assert [entry.path for entry in storage.list("rejected")]


def test_a_rank_killed_during_its_upload_leaves_no_checkpoint(
    tmp_path: Path, s3_server: s3.Server, environment: Mapping[str, str]
) -> None:
    life = Life(s3_server.uri("killed"), f"{tmp_path}/work", environment, every=1, part_seconds=1)
    processes, ends = ranks.start(live_beside_the_dying, 2, life)
    (fine, lived), _ = ends[0].recv(), processes[0].join()
    processes[1].join()
    assert fine, lived
    assert processes[1].exitcode == -9
    assert lived.stored == [1]
    assert "lacks the part of rank 1" in lived.failed[2]
    storage = Storage.open(life.uri, Credentials())
    assert any("step-00000002" in entry.path for entry in storage.list("checkpoints")), "part of it was uploaded"
    assert committed_steps(storage) == [1]
    again: list[Lived] = ranks.run(live, 2, replace(life, steps=3, every=3, keep=1, attempt="second"))
    assert [rank.resumed for rank in again] == [1, 1]
    assert {entry.path.split("/")[1][:13] for entry in storage.list("checkpoints")} == {"step-00000003"}, "and it is swept"


def test_a_rank_that_cannot_write_prevents_the_commit(
    tmp_path: Path, s3_server: s3.Server, environment: Mapping[str, str]
) -> None:
    acts = {2: break_disk_of_rank_1, 3: mend_disk_of_rank_1}
    life = Life(s3_server.uri("disk"), f"{tmp_path}/work", environment, steps=3, every=1, acts=acts)
    lived = ranks.run(live, 2, life)
    assert lived[0].stored == [1, 3], "training went on and stored the next one"
    assert "rank 1: " in lived[0].failed[2]
    assert "make room" in lived[0].failed[2]


def test_training_goes_on_while_the_storage_is_away(
    tmp_path: Path, s3_server: s3.Server, environment: Mapping[str, str]
) -> None:
    work_dir = tmp_path / "work"
    with s3.gate(s3_server, work_dir / "closed") as endpoint:
        life = Life(
            s3_server.uri("away"), str(work_dir), {**environment, "AWS_ENDPOINT_URL": endpoint}, steps=8, plain=True,
            acts={3: close_gate, 8: open_gate}, retry_seconds=(1.0,) * 60,
        )  # fmt: skip
        (lived,) = ranks.run(live, 1, life)
    assert lived.stored == [2, 4, 8], "the one on its way arrives later, and the last one is made up for"
    assert "step 4 is still on its way" in lived.failed[6]


def test_a_storage_that_stays_away_is_reported(tmp_path: Path, s3_server: s3.Server, environment: Mapping[str, str]) -> None:
    work_dir = tmp_path / "work"
    with s3.gate(s3_server, work_dir / "closed") as endpoint:
        life = Life(
            s3_server.uri("gone"), str(work_dir), {**environment, "AWS_ENDPOINT_URL": endpoint}, steps=4, acts={3: close_gate}
        )
        with pytest.raises(AssertionError, match=r"StorageError: spec\.checkpoint\.storage: could not write s3://"):
            ranks.run(live, 1, life)
    assert committed_steps(Storage.open(life.uri, Credentials())) == [2]


def test_another_runs_storage_is_refused_on_every_rank(tmp_path: Path, trained: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in trained.rglob("*"))
    other = {**IDENTITY, "training": {"seed": 2, "batchSize": 8}}
    with pytest.raises(AssertionError, match=r"(?s)rank 0:.*seed is 1 there and 2 here.*rank 1:.*seed is 1 there and 2 here"):
        ranks.run(live, 2, Life(f"file://{trained}", f"{tmp_path}/work", stage=2, identity=other))
    assert sorted((path, path.stat().st_mtime_ns) for path in trained.rglob("*")) == before
