"""How much memory this container, or this machine, has left."""

from __future__ import annotations

from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
# Names of the files with the limit and the usage, and of the reclaimable share in memory.stat: cgroup v2, then v1.
_CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def available_bytes(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> int | None:
    """Bytes that can still be allocated without swapping or a kill; None if the system does not say."""
    values = [value for value in (_within_limit(cgroup), _on_machine(meminfo)) if value is not None]
    return min(values, default=None)


def _within_limit(cgroup: Path) -> int | None:
    for limit, usage, stat, inactive in _CGROUP_FILES:
        try:
            limit_bytes = int((cgroup / limit).read_text())  # "max" without a limit
            used = int((cgroup / usage).read_text())
            counts = dict(line.split() for line in (cgroup / stat).read_text().splitlines())
            return limit_bytes - used + int(counts.get(inactive, 0))
        except (OSError, ValueError):
            continue
    return None


def _on_machine(meminfo: Path) -> int | None:
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return None
