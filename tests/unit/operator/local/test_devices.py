"""GPUs of the nodes of a local run."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_operator.local import devices
from finetune_operator.local.errors import LocalRunError


@pytest.mark.parametrize(
    ("visible", "nodes", "per_node", "expected"),
    [
        ("0,1,2,3", 2, 2, ["0,1", "2,3"]),
        ("GPU-a,GPU-b", 2, 1, ["GPU-a", "GPU-b"]),
        ("0,1,2,3", 1, 2, ["0,1"]),
        ("0", 2, 1, ["", ""]),
        ("", 2, 1, ["", ""]),
        ("-1", 1, 1, [""]),
    ],
    ids=["two-per-node", "by-uuid", "more-than-needed", "too-few", "none", "disabled"],
)
def test_gives_each_rank_a_gpu_or_none_at_all(visible: str, nodes: int, per_node: int, expected: list[str]) -> None:
    environments = devices.node_environments(nodes, per_node, {"CUDA_VISIBLE_DEVICES": visible})
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in environments] == expected


def fake_nvidia_smi(folder: Path, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_reports_a_driver_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(devices, "DRIVER_DEVICE", tmp_path)
    with pytest.raises(LocalRunError, match=r"^GPU: .*\(Failed to initialize NVML: Driver/library version mismatch\): repair"):
        devices.visible_gpus({})
    assert devices.visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []
    monkeypatch.setattr(devices, "DRIVER_DEVICE", tmp_path / "absent")
    assert devices.visible_gpus({}) == []


def test_lists_the_gpus_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, "echo 'GPU 0: NVIDIA H200 (UUID: GPU-a)'; echo 'GPU 1: NVIDIA H200 (UUID: GPU-b)'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert devices.visible_gpus({}) == ["0", "1"]
