"""What this machine has to share out among the nodes that run on it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path


def gpus(environment: Mapping[str, str]) -> list[str]:
    """Names of the GPUs that may be used, as CUDA_VISIBLE_DEVICES takes them."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [] if visible.strip() in ("", "-1") else [name.strip() for name in visible.split(",")]
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    count = sum(line.startswith("GPU ") for line in listing.stdout.splitlines()) if listing.returncode == 0 else 0
    return [str(index) for index in range(count)]


def node_environments(nodes: int, per_node: int, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """The environment of each node's agent: a GPU for each rank, or none at all when there are too few for that."""
    devices = gpus(environment)
    enough = len(devices) >= nodes * per_node
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    common = {
        "OMP_NUM_THREADS": str(max(1, cores // (nodes * per_node))),
        # Not in the node's own folder: what the hub gave once is there for every job of this user.
        "HF_HOME": str(Path(environment.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "huggingface"),
        **environment,
    }
    shares = [devices[node * per_node : (node + 1) * per_node] if enough else [] for node in range(nodes)]
    return [common | {"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares]
