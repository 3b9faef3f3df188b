"""The device of a rank: its GPU, or the CPU if no GPU was requested."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from finetune_trainer.protocol.environment import REQUESTED_GPUS
from finetune_trainer.protocol.outcome import ConfigurationError, GPUError, first_line

log = logging.getLogger(__name__)
DRIVER_DEVICE = Path("/dev/nvidiactl")
"""A device file that NVIDIA's driver makes, also in containers that have a GPU."""


def choose_device(local_rank: int) -> torch.device:
    """Make this rank's GPU the process's CUDA device and return it; return the CPU if no GPU is expected.

    Raises GPUError, with the words of CUDA, if a GPU is expected and cannot be used: training on the CPU instead would go
    unnoticed for hours. Raises ConfigurationError for more ranks than GPUs.
    """
    if not torch.cuda.is_available():
        expectation = gpu_expectation(os.environ)
        if expectation is None:
            return torch.device("cpu")
        raise GPUError(_explain(expectation, _startup_error(), os.environ))
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise ConfigurationError(
            f"spec.workers.processesPerNode: local rank {local_rank} has no GPU, because this node has {count}: lower it to "
            f"{count}, or request more GPUs in spec.workers.resources.limits"
        )
    device = torch.device("cuda", local_rank)
    try:
        torch.cuda.set_device(device)
        torch.zeros(1, device=device).item()  # fails for a GPU that is busy, broken, or too old for this build of torch
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise GPUError(_explain(f"local rank {local_rank} has GPU {local_rank}", first_line(error), os.environ)) from error
    return device


def log_device(device: torch.device, processes_per_node: int) -> None:
    """Log what the ranks of this node train on, and warn of GPUs that no rank uses."""
    if device.type == "cpu":
        log.info("training on the CPU: no GPU is visible")
        return
    count = torch.cuda.device_count()
    log.info("training on %s", torch.cuda.get_device_name(device))
    if count > processes_per_node:
        log.warning(
            "this node has %d GPUs, and spec.workers.processesPerNode is %d: the others are idle", count, processes_per_node
        )


def gpu_expectation(environment: Mapping[str, str]) -> str | None:
    """Why the run is expected to train on a GPU, as a clause; None if it may train on the CPU."""
    requested = environment.get(REQUESTED_GPUS)
    if requested:
        return f"the pod requests {requested} GPU{'' if requested == '1' else 's'}"
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        is_hidden = visible.strip() in ("", "-1")
        return None if is_hidden else f"CUDA_VISIBLE_DEVICES is {visible}"
    return f"this machine has NVIDIA's driver ({DRIVER_DEVICE})" if DRIVER_DEVICE.exists() else None


def _explain(expectation: str, error: str, environment: Mapping[str, str]) -> str:
    if environment.get(REQUESTED_GPUS):
        field = "spec.workers.resources"
        remedy = "repair or update the driver of the node, or remove the GPUs from the resources to train on its CPU"
    else:
        field = "CUDA_VISIBLE_DEVICES"
        remedy = "repair or update the driver, or set CUDA_VISIBLE_DEVICES to an empty text to train on the CPU"
    return f"{field}: {expectation}, but CUDA does not start ({error.rstrip('.')}): {remedy}"


def _startup_error() -> str:
    """What the driver or torch answers when CUDA is initialized."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # untyped in torch
    except (RuntimeError, AssertionError) as error:
        return first_line(error)
    return "no device is visible"
