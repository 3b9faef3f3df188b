"""Injects faults into the nodes of the cluster, and removes them again; for tests of fault tolerance."""

import os
import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import cgroups, node, process
from .errors import ClusterError, run
from .network import NODES, Node


def worker(name: str) -> Node:
    """The node with this name."""
    for candidate in NODES:
        if candidate.name == name:
            return candidate
    raise ClusterError(f"node {name} does not exist: use one of {', '.join(candidate.name for candidate in NODES)}.")


@contextmanager
def network_down(name: str) -> Iterator[None]:
    """Disconnect a node from the network."""
    link = worker(name).link
    run("ip", "link", "set", link, "down")
    try:
        yield
    finally:
        run("ip", "link", "set", link, "up")


@contextmanager
def component_stopped(name: str, component: str = "kubelet") -> Iterator[None]:
    """Stop the kubelet (or containerd, or kube-proxy) of a node with SIGSTOP; its pods keep running."""
    pid = process.pid(node.component(worker(name), component))
    if pid is None:
        raise ClusterError(f"{component} of {name} is not running.")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def container_pids(name: str, pod_uid: str) -> list[int]:
    """The host pids of the processes in the containers of a pod, so that a test can send signals to them."""
    pids: list[int] = []
    for qos_class in ("", "burstable/", "besteffort/"):
        pids += cgroups.pids(f"{worker(name).name}/kubepods/{qos_class}pod{pod_uid}")
    return sorted(pid for pid in pids if not _is_sandbox(pid))


def _is_sandbox(pid: int) -> bool:
    """Whether a process only holds the namespaces of its pod."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "pause"
    except FileNotFoundError:
        return False


def rank_pids(name: str, pod_uid: str) -> list[int]:
    """The host pids of the ranks of a trainer pod: the leaders of the process groups that its agent started."""
    return [pid for pid in container_pids(name, pod_uid) if _is_rank(pid)]


def _is_rank(pid: int) -> bool:
    """Whether a process is a rank: it leads a process group, and its stacks can be written to the file of a rank."""
    try:
        links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        return os.getpgid(pid) == pid and any("/stacks/rank-" in link for link in links)
    except (FileNotFoundError, ProcessLookupError):
        return False


def container_logs(namespace: str, pods: Collection[str]) -> list[Path]:
    """The log files of the trainer containers of all pods with one of these names, on all nodes."""
    found: list[Path] = []
    for worker_node in NODES:
        # The folders are called <namespace>_<pod>_<UID>.
        for directory in (node.state(worker_node) / "log" / "pods").glob(f"{namespace}_*"):
            if directory.name.split("_")[1] in pods:
                found += sorted(directory.glob("trainer/*.log"))
    return found


def send_signal(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to processes; those that have ended meanwhile are ignored."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
