"""Ways to break this cluster's nodes, and to mend them; for the tests of what must survive it."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from . import cgroups, node, process
from .errors import ClusterError, run
from .network import NODES, Node


def worker(name: str) -> Node:
    """The node of that name."""
    found = next((candidate for candidate in NODES if candidate.name == name), None)
    if found is None:
        raise ClusterError(f"there is no node {name}; there are {', '.join(each.name for each in NODES)}.")
    return found


@contextmanager
def cut_off(name: str) -> Iterator[None]:
    """A node without network: nothing reaches it, and it reaches nothing."""
    link = worker(name).link
    run("ip", "link", "set", link, "down")
    try:
        yield
    finally:
        run("ip", "link", "set", link, "up")


@contextmanager
def stopped(name: str, component: str = "kubelet") -> Iterator[None]:
    """A node whose kubelet (or containerd, or kube-proxy) hangs while its pods go on."""
    pid = process.pid(node.component(worker(name), component))
    if pid is None:
        raise ClusterError(f"{component} of {name} is not running.")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def container_pids(name: str, pod_uid: str) -> list[int]:
    """The processes of a pod as the host numbers them, so that a test may signal one."""
    found: list[int] = []
    for quality in ("", "burstable/", "besteffort/"):
        found += cgroups.pids(f"{worker(name).name}/kubepods/{quality}pod{pod_uid}")
    return sorted(found)
