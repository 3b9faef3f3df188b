"""Digests of files are computed once for each state of a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from finetune_trainer.data.sources.content import FileDigests


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"old")
    return path


def test_computes_the_sha256_of_a_file(file: Path, tmp_path: Path) -> None:
    assert FileDigests(tmp_path / "cache")(file) == hashlib.sha256(b"old").hexdigest()


def test_keeps_digests_of_unchanged_files(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = FileDigests(tmp_path / "cache")
    digest = first(file)
    first.save()
    monkeypatch.setattr(FileDigests, "_compute", lambda self, path: pytest.fail(f"{path} is read again"))
    assert FileDigests(tmp_path / "cache")(file) == digest


def test_notices_a_replacement_of_equal_size_and_time(file: Path, tmp_path: Path) -> None:
    digests = FileDigests(tmp_path / "cache")
    digests(file)
    digests.save()
    times = file.stat()
    file.write_bytes(b"new")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert FileDigests(tmp_path / "cache")(file) == hashlib.sha256(b"new").hexdigest()


def test_computes_digests_again_if_their_store_is_damaged(file: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/digests.json").write_text('{"')
    digests = FileDigests(tmp_path / "cache")
    assert digests(file) == hashlib.sha256(b"old").hexdigest()
    digests.save()
    assert FileDigests(tmp_path / "cache")._load().keys() == {file.as_posix()}
