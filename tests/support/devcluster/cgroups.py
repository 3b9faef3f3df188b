"""Control groups: what the kubelets divide among pods, and the record of which processes belong to the cluster.

A process cannot leave its group by forking, so emptying the cluster's groups ends everything it ever started, containers
included, without a guess by name.
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
    """The mounted hierarchies: one with cgroup v2; with v1 one for each controller, and often an idle one of v2."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [Path(mount[1]) for mount in mounts if mount[2] in ("cgroup", "cgroup2")]


def create(group: str) -> None:
    """Make a group in every hierarchy, parents included, able to hold processes."""
    for hierarchy in hierarchies():
        at = hierarchy
        for part in (ROOT, *group.split("/")):
            _delegate(at)
            at = at / part
            at.mkdir(exist_ok=True)
            _inherit_cpuset(at)


def procs_files(group: str) -> list[Path]:
    """The files into which a process writes its pid to enter the group."""
    return [hierarchy / ROOT / group / "cgroup.procs" for hierarchy in hierarchies()]


def pids(group: str = "") -> list[int]:
    """The processes in a group and in all below it."""
    found: list[int] = []
    for directory, _, _ in os.walk(_tracking() / ROOT / group):
        try:
            found += map(int, (Path(directory) / "cgroup.procs").read_text().split())
        except OSError:
            continue  # the group went away while we looked
    return found


def kill(group: str = "", patience: float = 15) -> None:
    """End every process of a group; one that was starting meanwhile is caught by the next round."""
    deadline = time.monotonic() + patience
    while left := pids(group):
        if time.monotonic() > deadline:
            raise ClusterError(f"processes {left} of {ROOT}/{group} survived SIGKILL for {patience:.0f} s.")
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def remove() -> None:
    """Remove the cluster's groups from every hierarchy; they must be empty."""
    for hierarchy in hierarchies():
        for directory, _, _ in os.walk(hierarchy / ROOT, topdown=False):
            _remove_one(Path(directory))


def _remove_one(group: Path) -> None:
    deadline = time.monotonic() + 5
    while group.exists():
        try:
            group.rmdir()
        except OSError:  # the kernel is still taking the last process's account
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _tracking() -> Path:
    return MOUNT if _VERSION_2 else MOUNT / "pids"


def _delegate(group: Path) -> None:
    """With v2 a group's children have only the controllers it hands on."""
    if _VERSION_2:
        available = (group / "cgroup.controllers").read_text().split()
        (group / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in available))


def _inherit_cpuset(group: Path) -> None:
    """With v1 a new cpuset is empty, and no process may enter it before it is filled."""
    for name in () if _VERSION_2 else ("cpuset.cpus", "cpuset.mems"):
        file = group / name
        if file.exists() and not file.read_text().strip():
            file.write_text((group.parent / name).read_text())
