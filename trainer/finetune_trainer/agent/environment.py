"""The environment variables of a rank."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from finetune_trainer.agent.settings import Settings

GPU_DEVICES = tuple(Path(path) for path in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))
# Files with the container's CPU quota and its period in microseconds: cgroup v2 has one file, v1 has two.
CPU_QUOTAS = (
    (Path("/sys/fs/cgroup/cpu.max"),),
    (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")),
)
# glibc returns large freed blocks to the system at once; a training step on the CPU may then spend a third of its time on
# allocating them again. Keeping them costs memory instead: the process stays at its peak.
KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}


def rank_environment(settings: Settings, inherited: Mapping[str, str]) -> dict[str, str]:
    """The inherited variables, and defaults for variables that are unset there.

    Caches are below the work directory because the root file system of a pod is read-only.
    """
    work_dir = settings.work_dir
    defaults = {
        "OMP_NUM_THREADS": str(max(1, available_cores() // settings.processes_per_node)),
        "HF_HOME": str(work_dir / "hub"),
        "MPLCONFIGDIR": str(work_dir / "matplotlib"),
        "TORCH_EXTENSIONS_DIR": str(work_dir / "torch-extensions"),
        "TRITON_CACHE_DIR": str(work_dir / "triton"),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if not has_gpu(inherited):
        defaults |= {"DS_ACCELERATOR": "cpu"} | KEEP_FREED_MEMORY
    return defaults | dict(inherited) | {"PYTHONUNBUFFERED": "1"}


def has_gpu(environment: Mapping[str, str]) -> bool:
    """Whether a GPU is visible. Looks at device files, because a query of the driver would allocate memory on the GPU."""
    is_hidden = environment.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return not is_hidden and any(device.exists() for device in GPU_DEVICES)


def available_cores() -> int:
    """Cores that this process may use: its CPU affinity, limited by the container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in CPU_QUOTAS:
        try:
            quota, period = (int(number) for file in files for number in file.read_text().replace("max", "-1").split())
        except (OSError, ValueError):
            continue
        if quota > 0:
            return max(1, min(cores, math.ceil(quota / period)))
        return cores
    return cores
