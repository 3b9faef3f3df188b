"""The directory of a local run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from finetune_operator.local.errors import LocalRunError
from finetune_operator.local.job_directory import JobDirectory


def test_the_run_id_stays_and_differs_in_a_copy(tmp_path: Path) -> None:
    first, copied, moved = tmp_path / "first", tmp_path / "copied", tmp_path / "moved"
    first.mkdir()
    run_id = JobDirectory(first).run_id()
    assert JobDirectory(first).run_id() == run_id
    shutil.copytree(first, copied)
    assert JobDirectory(copied).run_id() != run_id
    first.rename(moved)
    assert JobDirectory(moved).run_id() == run_id


def test_a_locked_directory_is_refused_while_its_run_lives(tmp_path: Path) -> None:
    directory = JobDirectory(tmp_path)
    with (
        directory.locked(pytest.fail),
        pytest.raises(LocalRunError, match="is already running with its state in"),
        directory.locked(pytest.fail),
    ):
        pass
    with directory.locked(pytest.fail) as lock:
        assert os.pread(lock, 20, 0) == str(os.getpid()).encode()
