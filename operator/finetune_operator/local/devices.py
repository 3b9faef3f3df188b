"""Divides the GPUs and CPU cores of this machine among the nodes of a local run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from finetune_operator.local.errors import LocalRunError

DRIVER_DEVICE = Path("/dev/nvidiactl")
"""A device file that NVIDIA's driver makes."""


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """List the GPUs that may be used, by their names in CUDA_VISIBLE_DEVICES.

    Raises LocalRunError, with the words of nvidia-smi, if this machine has a driver that does not answer.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [] if visible.strip() in ("", "-1") else [name.strip() for name in visible.split(",")]
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        if not DRIVER_DEVICE.exists():
            return []
        words = " ".join((listing.stderr + listing.stdout).split()).rstrip(".")
        raise LocalRunError(
            f"GPU: this machine has NVIDIA's driver, and nvidia-smi fails ({words}): repair the driver, or set "
            "CUDA_VISIBLE_DEVICES to an empty text to train on the CPU"
        )
    count = sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
    return [str(index) for index in range(count)]


def node_environments(nodes: int, processes_per_node: int, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """Build the environment of each node's agent: one GPU per rank, or no GPUs at all if there are too few."""
    gpus = visible_gpus(environment)
    has_enough_gpus = len(gpus) >= nodes * processes_per_node
    common = {
        "OMP_NUM_THREADS": str(max(1, _usable_cores() // (nodes * processes_per_node))),
        # Downloads from the hub are kept in the user's cache, not in the node's directory, so that all jobs share them.
        "HF_HOME": str(Path(environment.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "huggingface"),
        **environment,
    }
    environments = []
    for node in range(nodes):
        first = node * processes_per_node
        node_gpus = gpus[first : first + processes_per_node] if has_enough_gpus else []
        environments.append(common | {"CUDA_VISIBLE_DEVICES": ",".join(node_gpus)})
    return environments


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
