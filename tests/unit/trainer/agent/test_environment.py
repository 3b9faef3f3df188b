"""The environment variables of a rank."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_trainer.agent import environment
from finetune_trainer.agent.environment import available_cores, has_gpu, rank_environment
from finetune_trainer.agent.settings import Settings


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        (["max 100000\n"], 8),
        (["250000 100000\n"], 3),
        (["50000 100000\n"], 1),
        (["1600000 100000\n"], 8),
        (["?"], 8),
        (["-1\n", "100000\n"], 8),
        (["200000\n", "100000\n"], 2),
    ],
)
def test_limits_cores_to_container_quota(quota: list[str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _: set(range(8)))
    files = tuple(tmp_path / str(index) for index in range(len(quota)))
    for file, text in zip(files, quota, strict=True):
        file.write_text(text)
    monkeypatch.setattr(environment, "CPU_QUOTAS", ((tmp_path / "absent",), files))
    assert available_cores() == cores


@pytest.mark.parametrize(
    ("visible", "device", "expected"), [(None, True, True), (None, False, False), ("", True, False), ("-1", True, False)]
)
def test_detects_visible_gpu(
    visible: str | None, device: bool, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "GPU_DEVICES", (tmp_path if device else tmp_path / "absent",))
    assert has_gpu({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}) is expected


def test_divides_cores_and_keeps_inherited_variables(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "available_cores", lambda: 8)
    monkeypatch.setattr(environment, "GPU_DEVICES", ())
    variables = rank_environment(settings, {"HF_HOME": "/elsewhere", "PATH": "/bin"})
    assert variables["OMP_NUM_THREADS"] == "4"
    assert variables["DS_ACCELERATOR"] == "cpu"
    assert variables["MALLOC_MMAP_MAX_"] == "0"
    assert (variables["HF_HOME"], variables["PATH"]) == ("/elsewhere", "/bin")
    assert variables["TRITON_CACHE_DIR"] == str(settings.work_dir / "triton")
    assert rank_environment(settings, {"OMP_NUM_THREADS": "3"})["OMP_NUM_THREADS"] == "3"
