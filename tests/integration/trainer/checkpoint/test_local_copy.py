"""A restart on the same node reads the files of the last upload instead of downloading them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import ranks, s3
from tests.support.checkpoints import Attempt, AttemptResult, run_attempt

from finetune_trainer.storage.base import Credentials, Storage
from finetune_trainer.storage.registry import open_storage


@pytest.fixture(scope="module")
def trained(s3_server: s3.Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Attempt, list[AttemptResult]]:
    """An attempt with checkpoints of steps 2 and 4, and its results."""
    folder = tmp_path_factory.mktemp("trained")
    attempt = Attempt(s3_server.uri("local-copy"), f"{folder}/work", s3_server.environment, stage=2, steps=5)
    results = ranks.run(run_attempt, 2, attempt)
    assert results[0].stored == [2, 4], results[0].failed
    return attempt, results


@pytest.fixture
def storage(trained: tuple[Attempt, list[AttemptResult]], s3_server: s3.Server, tmp_path: Path) -> Iterator[Storage]:
    """A copy of the attempt's storage, which the test may change."""
    before = dict(os.environ)
    os.environ.update(s3_server.environment)
    open_storage(trained[0].uri, Credentials()).download_folder(tmp_path / "stored")
    storage = open_storage(s3_server.uri(f"local-copy-{tmp_path.name}"), Credentials())
    storage.upload_folder(tmp_path / "stored")
    yield storage
    os.environ.clear()
    os.environ.update(before)


def copies(work_dir: Path) -> list[Path]:
    return sorted(path for path in (work_dir / "recent").rglob("*") if path.is_file())


def resume(trained: tuple[Attempt, list[AttemptResult]], storage: Storage, work_dir: Path) -> list[AttemptResult]:
    results: list[AttemptResult] = ranks.run(
        run_attempt, 2, replace(trained[0], uri=storage.uri, work_dir=str(work_dir), name="second")
    )
    return results


def copy_work(trained: tuple[Attempt, list[AttemptResult]], tmp_path: Path) -> Path:
    """A copy of the attempt's work directory."""
    target = tmp_path / "work"
    for file in copies(Path(trained[0].work_dir)):
        copy = target / file.relative_to(trained[0].work_dir)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    return target


def test_keeps_one_checkpoint(trained: tuple[Attempt, list[AttemptResult]]) -> None:
    work_dir = Path(trained[0].work_dir)
    assert {file.parent.parent.name for file in copies(work_dir)} == {"rank-00000", "rank-00001"}
    assert {file.parent.name[:13] for file in copies(work_dir)} == {"step-00000004"}
    assert not (work_dir / "upload").exists() or not any((work_dir / "upload").rglob("*.pt"))
    assert not (work_dir / "restore").exists()


def test_downloads_nothing_that_the_node_has(
    trained: tuple[Attempt, list[AttemptResult]], storage: Storage, tmp_path: Path
) -> None:
    for entry in storage.list("checkpoints"):
        if entry.path.endswith(".pt"):
            storage.delete(entry.path)  # a download would fail
    results = resume(trained, storage, copy_work(trained, tmp_path))
    assert [result.resumed for result in results] == [4, 4]
    assert results[0].losses == {5: trained[1][0].losses[5]}


def flip_bit(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-9] + bytes([content[-9] ^ 4]) + content[-8:])


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip_bit, truncate, Path.unlink])
def test_files_that_the_node_has_not_intact_are_downloaded(
    trained: tuple[Attempt, list[AttemptResult]], storage: Storage, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    work_dir = copy_work(trained, tmp_path)
    for file in copies(work_dir):
        if "rank-00001" in file.parent.parent.name:
            damage(file)
    results = resume(trained, storage, work_dir)
    assert [result.resumed for result in results] == [4, 4], "every rank uses the same checkpoint"
    assert results[0].losses == {5: trained[1][0].losses[5]}


def test_files_of_a_step_without_a_manifest_are_not_used(
    trained: tuple[Attempt, list[AttemptResult]], storage: Storage, tmp_path: Path
) -> None:
    storage.delete("manifests/step-00000004.json")
    work_dir = copy_work(trained, tmp_path)
    results = resume(trained, storage, work_dir)
    assert [result.resumed for result in results] == [2, 2]
    assert results[0].losses == {number: loss for number, loss in trained[1][0].losses.items() if number > 2}
    assert {file.parent.name[:13] for file in copies(work_dir)} == {"step-00000004"}, "it was stored again"
    assert not any(file.parent.name.endswith("-first") for file in copies(work_dir))
