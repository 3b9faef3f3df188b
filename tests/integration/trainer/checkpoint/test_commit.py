"""What makes files a checkpoint, what does not, and what is removed; no training needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support import s3

from finetune_trainer.checkpoint import commit, files
from finetune_trainer.checkpoint.manifest import (
    OWNER,
    File,
    Manifest,
    Part,
    committed_steps,
    first_difference,
    folder_of,
    hash_of,
    manifest_path,
)
from finetune_trainer.checkpoint.restore import newest
from finetune_trainer.checkpoint.retention import retain
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.base import Credentials, Storage

IDENTITY: dict[str, Any] = {"training": {"seed": 1}, "model": {"source": "hf://a/b"}}


@pytest.fixture(params=["s3", "file"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> Storage:
    for key, value in s3_server.environment.items():
        monkeypatch.setenv(key, value)
    uri = s3_server.uri(f"commit/{request.node.name}") if request.param == "s3" else f"file://{tmp_path}/out"
    return Storage.open(uri, Credentials())


def manifest(step: int, attempt: str = "mine", identity: dict[str, Any] | None = None) -> Manifest:
    identity = identity or IDENTITY
    return Manifest(
        step=step, attempt=attempt, world_size=1, zero_stage=1, precision="float32", identity_hash=hash_of(identity),
        identity=identity, files=[File(name="f", size=1, sha256="0", rank=0)], time="2026-01-01T00:00:00Z", deepspeed="0",
        torch="0",
    )  # fmt: skip


def store(storage: Storage, step: int, attempt: str = "mine", identity: dict[str, Any] | None = None) -> None:
    """A committed checkpoint with one file."""
    storage.put(OWNER, attempt.encode())
    storage.put(f"{folder_of(step, attempt)}/f", b"1")
    commit.commit(storage, manifest(step, attempt, identity))


def test_a_step_is_committed_once(storage: Storage) -> None:
    store(storage, 1, "first")
    before = storage.get(manifest_path(1))
    with pytest.raises(commit.Refused, match="step 1 is already committed by first"):
        store(storage, 1, "second")
    assert storage.get(manifest_path(1)) == before


def test_a_commit_whose_answer_was_lost_is_no_failure(storage: Storage) -> None:
    store(storage, 1)
    commit.commit(storage, manifest(1))


def test_an_attempt_that_was_replaced_cannot_commit(storage: Storage) -> None:
    storage.put(OWNER, b"new")
    with pytest.raises(commit.Refused, match="attempt new has taken over"):
        commit.commit(storage, manifest(1, "old"))
    assert committed_steps(storage) == []


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([Part(rank=0), Part(rank=2)], "lacks the part of rank 1 after 0 s"),
        ([Part(rank=0), Part(rank=1, error="No space left"), Part(rank=2)], "rank 1: No space left"),
    ],
)
def test_all_ranks_must_have_stored_their_part(storage: Storage, parts: list[Part], message: str) -> None:
    for part in parts:
        commit.put_part(storage, 1, "mine", part)
    with pytest.raises(commit.Refused, match=message):
        commit.collect_parts(storage, 1, "mine", 3, patience=0)


@pytest.mark.parametrize(
    ("steps", "keep", "left"),
    [([1], 1, [1]), ([1, 2], 1, [2]), ([1, 2, 3], 2, [3, 2]), ([1, 2, 3], 9, [3, 2, 1])],
)
def test_the_last_ones_are_kept(storage: Storage, steps: list[int], keep: int, left: list[int]) -> None:
    for step in steps:
        store(storage, step)
    retain(storage, keep, manifest(steps[-1]))
    assert committed_steps(storage) == left
    assert [entry.path for entry in storage.list("checkpoints")] == [f"{folder_of(step, 'mine')}/f" for step in reversed(left)]


@pytest.mark.parametrize(("best_first", "left"), [([1, 2, 3], [4, 1]), ([9, 2, 1], [4, 2]), ([4, 1], [4]), ([], [4])])
def test_the_best_one_is_kept_too(storage: Storage, best_first: list[int], left: list[int]) -> None:
    for step in (1, 2, 3, 4):
        store(storage, step)
    retain(storage, 1, manifest(4), best_first)
    assert committed_steps(storage) == left
    assert len(storage.list("checkpoints")) == len(left)


def test_files_of_dead_attempts_are_swept(storage: Storage) -> None:
    store(storage, 5)
    for step, attempt in [(3, "dead"), (5, "dead"), (6, "mine")]:
        storage.put(f"{folder_of(step, attempt)}/f", b"1")
    retain(storage, 2, manifest(5))
    left = [entry.path for entry in storage.list("checkpoints")]
    assert left == [f"{folder_of(5, 'mine')}/f", f"{folder_of(6, 'mine')}/f"], "a later step may be on its way"


def test_another_runs_checkpoints_are_refused_and_left_alone(storage: Storage) -> None:
    store(storage, 1)
    before = storage.list()
    other = {"training": {"seed": 2}, "model": {"source": "hf://a/b"}}
    message = r"spec\.checkpoint\.storage: .* holds checkpoints of another run \(spec\.training\.seed is 1 there and 2 here\)"
    with pytest.raises(ConfigurationError, match=message):
        newest(storage, other)
    assert storage.list() == before


def test_a_manifest_that_cannot_be_read_is_passed_over(storage: Storage) -> None:
    store(storage, 1)
    storage.put(manifest_path(2), b'{"step": 2, "att')
    found = newest(storage, IDENTITY)
    assert found
    assert found.step == 1
    store(storage, 2)
    assert newest(storage, IDENTITY) == manifest(2)


def test_a_manifest_of_another_version_is_refused(storage: Storage) -> None:
    storage.put(manifest_path(2), b'{"version": 99}')
    with pytest.raises(ConfigurationError, match="another version of the trainer"):
        newest(storage, IDENTITY)


@pytest.mark.parametrize(
    ("stored", "wanted", "sentence"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, "spec.a.c is 2 there and 3 here"),
        ({"a": {}}, {"a": {"b": "x"}}, 'spec.a.b is absent there and "x" here'),
        ({"a": [1]}, {"a": [1, 2]}, "spec.a is [1] there and [1, 2] here"),
    ],
)
def test_the_field_that_differs_is_named(stored: dict[str, Any], wanted: dict[str, Any], sentence: str | None) -> None:
    assert first_difference(stored, wanted) == sentence


@pytest.mark.parametrize("read_soon", [True, False])
@pytest.mark.parametrize("damage", ["none", "flip", "truncate", "remove"])
def test_a_file_is_compared_with_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, read_soon: bool
) -> None:
    monkeypatch.setattr(files, "_FLUSH_BYTES", 100)  # so that a small file goes to the disk in pieces too
    path = tmp_path / "folder/f.pt"
    file = files.write({"numbers": list(range(1000))}, path, rank=0, read_soon=read_soon)
    assert [entry.name for entry in path.parent.iterdir()] == ["f.pt"]
    content = path.read_bytes()
    match damage:
        case "flip":
            path.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])
        case "truncate":
            path.write_bytes(content[:-1])
        case "remove":
            path.unlink()
    assert files.is_intact(path, file) == (damage == "none")
