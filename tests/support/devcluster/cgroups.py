"""Control groups: the kubelets divide them among pods, and they record which processes belong to the cluster.

A process cannot leave its group by forking. Killing all processes in the cluster's groups therefore ends everything that the
cluster started, containers included, without a search by name.
"""

import os
import signal
import time
from pathlib import Path

from .errors import ClusterError

MOUNT = Path("/sys/fs/cgroup")
ROOT = "finetune-devcluster"
_VERSION_2 = (MOUNT / "cgroup.controllers").exists()


def hierarchies() -> list[Path]:
    """The mounted hierarchies: one with cgroup v2; with v1 one for each controller, and often an unused one of v2."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [Path(mount[1]) for mount in mounts if mount[2] in ("cgroup", "cgroup2")]


def create(group: str) -> None:
    """Create a group and its parents in every hierarchy, so that processes can enter it."""
    for hierarchy in hierarchies():
        directory = hierarchy
        for part in (ROOT, *group.split("/")):
            _delegate(directory)
            directory = directory / part
            directory.mkdir(exist_ok=True)
            _inherit_cpuset(directory)


def procs_files(group: str) -> list[Path]:
    """The files to which a process writes its pid to enter a group."""
    return [hierarchy / ROOT / group / "cgroup.procs" for hierarchy in hierarchies()]


def pids(group: str = "") -> list[int]:
    """The pids in a group and in all groups below it."""
    result: list[int] = []
    for directory, _, _ in os.walk(_tracking_hierarchy() / ROOT / group):
        try:
            result += map(int, (Path(directory) / "cgroup.procs").read_text().split())
        except OSError:
            continue  # the group was removed meanwhile
    return result


def kill(group: str = "", timeout: float = 15) -> None:
    """Kill every process of a group; processes that start meanwhile are killed in the next iteration.

    Raises ClusterError if processes survive for `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while remaining := pids(group):
        if time.monotonic() > deadline:
            raise ClusterError(f"processes {remaining} of {ROOT}/{group} survived SIGKILL for {timeout:.0f} s.")
        for pid in remaining:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def remove() -> None:
    """Remove the groups of the cluster from every hierarchy; they must be empty."""
    for hierarchy in hierarchies():
        for directory, _, _ in os.walk(hierarchy / ROOT, topdown=False):
            _remove_one(Path(directory))


def _remove_one(group: Path) -> None:
    deadline = time.monotonic() + 5
    while group.exists():
        try:
            group.rmdir()
        except OSError:  # the kernel has not finished the exit of the last process
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _tracking_hierarchy() -> Path:
    """The hierarchy in which processes are looked up."""
    return MOUNT if _VERSION_2 else MOUNT / "pids"


def _delegate(group: Path) -> None:
    """Enable all controllers for the children of a group; only v2 requires this."""
    if _VERSION_2:
        available = (group / "cgroup.controllers").read_text().split()
        (group / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in available))


def _inherit_cpuset(group: Path) -> None:
    """Copy the cpuset of the parent: with v1 a new cpuset is empty, and no process may enter an empty one."""
    if _VERSION_2:
        return
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = group / name
        if file.exists() and not file.read_text().strip():
            file.write_text((group.parent / name).read_text())
