"""Injects faults into the nodes of the cluster, and removes them again; for tests of fault tolerance."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

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
    """The host pids of the processes of a pod, so that a test can send signals to them."""
    pids: list[int] = []
    for qos_class in ("", "burstable/", "besteffort/"):
        pids += cgroups.pids(f"{worker(name).name}/kubepods/{qos_class}pod{pod_uid}")
    return sorted(pids)
