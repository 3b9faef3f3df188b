"""Commit, retention and choice of the manifest to restore, without training."""

from __future__ import annotations

import json
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
    checkpoint_folder,
    committed_steps,
    manifest_path,
)
from finetune_trainer.checkpoint.restore import find_manifest
from finetune_trainer.checkpoint.retention import apply_retention
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.base import Credentials, Storage
from finetune_trainer.storage.registry import open_storage

IDENTITY: dict[str, Any] = {"training": {"seed": 1}, "model": {"source": "hf://a/b"}}


@pytest.fixture(params=["s3", "file"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> Storage:
    for key, value in s3_server.environment.items():
        monkeypatch.setenv(key, value)
    uri = s3_server.uri(f"commit/{request.node.name}") if request.param == "s3" else f"file://{tmp_path}/out"
    return open_storage(uri, Credentials())


def manifest(step: int, attempt: str = "mine", identity: dict[str, Any] | None = None) -> Manifest:
    identity = identity or IDENTITY
    return Manifest(
        step=step, attempt=attempt, world_size=1, zero_stage=1, precision="float32", identity=identity,
        files=[File(name="f", size=1, sha256="0", rank=0)], time="2026-01-01T00:00:00Z", deepspeed="0", torch="0",
    )  # fmt: skip


def store_checkpoint(storage: Storage, step: int, attempt: str = "mine", identity: dict[str, Any] | None = None) -> None:
    """Commit a checkpoint with one file."""
    storage.put(OWNER, attempt.encode())
    storage.put(f"{checkpoint_folder(step, attempt)}/f", b"1")
    commit.commit(storage, manifest(step, attempt, identity))


def test_commits_a_step_once(storage: Storage) -> None:
    store_checkpoint(storage, 1, "first")
    before = storage.get(manifest_path(1))
    with pytest.raises(commit.CommitError, match="step 1 is already committed by first"):
        store_checkpoint(storage, 1, "second")
    assert storage.get(manifest_path(1)) == before


def test_accepts_own_manifest_when_commit_is_repeated(storage: Storage) -> None:
    store_checkpoint(storage, 1)
    commit.commit(storage, manifest(1))


def test_rejects_commit_of_replaced_attempt(storage: Storage) -> None:
    storage.put(OWNER, b"new")
    with pytest.raises(commit.CommitError, match="attempt new has taken over"):
        commit.commit(storage, manifest(1, "old"))
    assert committed_steps(storage) == []


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([Part(rank=0), Part(rank=2)], "lacks the part of rank 1 after 0 s"),
        ([Part(rank=0), Part(rank=1, error="No space left"), Part(rank=2)], "rank 1: No space left"),
    ],
)
def test_requires_parts_of_all_ranks(storage: Storage, parts: list[Part], message: str) -> None:
    for part in parts:
        commit.put_part(storage, 1, "mine", part)
    with pytest.raises(commit.CommitError, match=message):
        commit.collect_parts(storage, 1, "mine", 3, timeout_seconds=0)


@pytest.mark.parametrize(
    ("steps", "keep_last", "expected"),
    [([1], 1, [1]), ([1, 2], 1, [2]), ([1, 2, 3], 2, [3, 2]), ([1, 2, 3], 9, [3, 2, 1])],
)
def test_keeps_last_checkpoints(storage: Storage, steps: list[int], keep_last: int, expected: list[int]) -> None:
    for step in steps:
        store_checkpoint(storage, step)
    apply_retention(storage, keep_last, manifest(steps[-1]))
    assert committed_steps(storage) == expected
    assert [entry.path for entry in storage.list("checkpoints")] == [
        f"{checkpoint_folder(step, 'mine')}/f" for step in reversed(expected)
    ]


@pytest.mark.parametrize(("ranked_steps", "expected"), [([1, 2, 3], [4, 1]), ([9, 2, 1], [4, 2]), ([4, 1], [4]), ([], [4])])
def test_keeps_best_checkpoint(storage: Storage, ranked_steps: list[int], expected: list[int]) -> None:
    for step in (1, 2, 3, 4):
        store_checkpoint(storage, step)
    apply_retention(storage, 1, manifest(4), ranked_steps)
    assert committed_steps(storage) == expected
    assert len(storage.list("checkpoints")) == len(expected)


def test_deletes_files_of_dead_attempts(storage: Storage) -> None:
    store_checkpoint(storage, 5)
    for step, attempt in [(3, "dead"), (5, "dead"), (6, "mine")]:
        storage.put(f"{checkpoint_folder(step, attempt)}/f", b"1")
    apply_retention(storage, 2, manifest(5))
    paths = [entry.path for entry in storage.list("checkpoints")]
    assert paths == [f"{checkpoint_folder(5, 'mine')}/f", f"{checkpoint_folder(6, 'mine')}/f"], (
        "files of a later step may belong to a save in progress"
    )


def test_retention_keeps_the_files_of_an_unreadable_manifest(storage: Storage) -> None:
    for step in (1, 2, 3):
        store_checkpoint(storage, step)
    storage.put(manifest_path(2), b"{")
    apply_retention(storage, 2, manifest(3))
    assert [entry.path for entry in storage.list("checkpoints")] == [
        f"{checkpoint_folder(2, 'mine')}/f", f"{checkpoint_folder(3, 'mine')}/f"
    ]  # fmt: skip


def test_reads_a_manifest_of_version_1(storage: Storage) -> None:
    first_version = manifest(1).document() | {"version": 1, "identityHash": "0"}
    storage.put(manifest_path(1), json.dumps(first_version).encode())
    restored = find_manifest(storage, IDENTITY)
    assert restored
    assert (restored.step, restored.total_steps, restored.data) == (1, None, None)


def test_rejects_checkpoints_of_another_run_and_keeps_them(storage: Storage) -> None:
    store_checkpoint(storage, 1)
    before = storage.list()
    other = {"training": {"seed": 2}, "model": {"source": "hf://a/b"}}
    message = r"^spec\.training\.seed: .* holds the checkpoints of another run, .* \(spec\.training\.seed was 1 and is 2\)"
    with pytest.raises(ConfigurationError, match=message):
        find_manifest(storage, other)
    assert storage.list() == before


def test_ignores_unreadable_manifest(storage: Storage) -> None:
    store_checkpoint(storage, 1)
    storage.put(manifest_path(2), b'{"step": 2, "att')
    restored = find_manifest(storage, IDENTITY)
    assert restored
    assert restored.step == 1
    store_checkpoint(storage, 2)
    assert find_manifest(storage, IDENTITY) == manifest(2)


def test_rejects_manifest_of_another_version(storage: Storage) -> None:
    storage.put(manifest_path(2), b'{"version": 99}')
    with pytest.raises(ConfigurationError, match="another version of the trainer"):
        find_manifest(storage, IDENTITY)


@pytest.mark.parametrize("read_soon", [True, False])
@pytest.mark.parametrize("damage", ["none", "flip", "truncate", "remove"])
def test_detects_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, read_soon: bool) -> None:
    monkeypatch.setattr(files, "_FLUSH_BYTES", 100)  # flushes even a small file in several pieces
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
