"""A rank trains on its GPU, on the CPU where no GPU is expected, and otherwise fails with CUDA's words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_trainer.distributed import devices
from finetune_trainer.distributed.devices import choose_device, gpu_expectation
from finetune_trainer.protocol.outcome import EXIT_POLICIES, ConfigurationError, GPUError

OLD_DRIVER = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading and "
    "installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)


def fail_with(message: str) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(message)

    return fail


@pytest.fixture(autouse=True)
def no_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "DRIVER_DEVICE", tmp_path / "absent")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", fail_with(OLD_DRIVER))
    for name in ("FINETUNE_REQUESTED_GPUS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("visible", [None, "", "-1"])
def test_uses_the_cpu_where_no_gpu_is_expected(visible: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if visible is not None:
        monkeypatch.setattr(devices, "DRIVER_DEVICE", Path("/dev"))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert choose_device(0) == torch.device("cpu")


def test_a_requested_gpu_with_an_old_driver_fails_with_the_drivers_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_REQUESTED_GPUS", "8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(GPUError) as caught:
        choose_device(0)
    assert str(caught.value) == (
        f"spec.workers.resources: the pod requests 8 GPUs, but CUDA does not start ({OLD_DRIVER}): repair or update the driver "
        "of the node, or remove the GPUs from the resources to train on its CPU"
    )
    policy = EXIT_POLICIES[caught.value.reason]
    assert (policy.exit_code, policy.in_place, policy.retry) == (12, False, True)


@pytest.mark.parametrize("variable", [True, False])
def test_a_gpu_of_this_machine_that_cannot_be_used_fails(variable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    else:
        monkeypatch.setattr(devices, "DRIVER_DEVICE", Path("/dev"))
    with pytest.raises(GPUError, match=r"^CUDA_VISIBLE_DEVICES: .* too old .*: repair or update the driver, or set"):
        choose_device(0)


def test_a_gpu_that_is_busy_or_broken_fails_with_the_words_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", fail_with("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nx"))
    with pytest.raises(GPUError, match=r"local rank 0 has GPU 0, but CUDA does not start \(CUDA error: .* unavailable\): "):
        choose_device(0)


def test_rejects_more_ranks_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigurationError, match=r"^spec\.workers\.processesPerNode: local rank 2 has no GPU, .* has 2: lower"):
        choose_device(2)


def test_names_the_requested_number_of_gpus() -> None:
    assert gpu_expectation({"FINETUNE_REQUESTED_GPUS": "1"}) == "the pod requests 1 GPU"
    assert gpu_expectation({}) is None
