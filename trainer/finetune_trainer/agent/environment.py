"""The environment variables of a rank."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from finetune_trainer.agent.settings import Settings

GPU_DEVICES = tuple(Path(path) for path in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))
# Where a container finds its share of the cores, in microseconds of a period: cgroup v2 in one file, v1 in two.
CPU_QUOTAS = (
    (Path("/sys/fs/cgroup/cpu.max"),),
    (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")),
)
# glibc gives large blocks back to the system as soon as they are freed; a step of training on the CPU may then spend a third of
# of its time on asking for them again. Kept, they cost memory instead: the process stays at its peak.
KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}


def rank_environment(settings: Settings, inherited: Mapping[str, str]) -> dict[str, str]:
    """What the agent was started with, and a default for whatever is unset there and matters.

    Caches lie below the work directory because the root file system of a pod is read-only.
    """
    work = settings.work_dir
    defaults = {
        "OMP_NUM_THREADS": str(max(1, available_cores() // settings.processes_per_node)),
        "HF_HOME": str(work / "hub"),
        "MPLCONFIGDIR": str(work / "matplotlib"),
        "TORCH_EXTENSIONS_DIR": str(work / "torch-extensions"),
        "TRITON_CACHE_DIR": str(work / "triton"),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if not has_gpu(inherited):
        defaults |= {"DS_ACCELERATOR": "cpu"} | KEEP_FREED_MEMORY
    return defaults | dict(inherited) | {"PYTHONUNBUFFERED": "1"}


def has_gpu(environment: Mapping[str, str]) -> bool:
    """Whether a GPU can be seen; asking its driver would cost memory on it."""
    hidden = environment.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return not hidden and any(device.exists() for device in GPU_DEVICES)


def available_cores() -> int:
    """Cores this process may use: its affinity, and the container's share of them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in CPU_QUOTAS:
        try:
            quota, period = (int(number) for file in files for number in file.read_text().replace("max", "-1").split())
        except (OSError, ValueError):
            continue
        return max(1, min(cores, math.ceil(quota / period))) if quota > 0 else cores
    return cores
