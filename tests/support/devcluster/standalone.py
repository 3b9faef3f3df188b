"""Control planes without nodes, for tests of the operator with other controllers: quick to start, several at a time.

etcd, API server, controller manager and scheduler are the real ones. kwok plays the kubelets: pods become ready at once, and
run nothing. All processes belong to the test and end with it.
"""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import components, kwok, probe
from .certificates import Authority, new_key, private_pem, public_pem, write_pair
from .errors import ClusterError, run
from .gobuild import binary

HOST = "127.0.0.1"
READY_SECONDS = 300.0  # a loaded machine may need minutes
ISSUER = "https://kubernetes.default.svc"
SERVICES = "10.111.0.0/16"


@dataclass(frozen=True)
class Standalone:
    """A running control plane; `directory` holds its files and logs, `pids` the process ids by component."""

    directory: Path
    kubeconfig: Path
    pids: dict[str, int] = field(default_factory=dict)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as an administrator and return its output."""
        return run(binary("kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments, stdin=stdin)

    def add_nodes(self, cpu: dict[str, str]) -> None:
        """Add fake nodes, with this much CPU by name."""
        nodes = [_node(name, amount) for name, amount in cpu.items()]
        self.kubectl("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes}))


@contextmanager
def control_plane(directory: Path) -> Iterator[Standalone]:
    """A control plane for the duration of a test."""
    directory.mkdir(parents=True, exist_ok=True)
    etcd, peers, api, controllers, scheduler, fakes = free_ports(6)
    authority, server = Authority(), f"https://{HOST}:{api}"
    names = (HOST, "localhost", "kubernetes.default.svc", "10.111.0.1")
    write_pair(directory, "apiserver", authority.issue("kube-apiserver", addresses=names))
    write_pair(directory, "admin", authority.issue("admin", "system:masters"))
    (directory / "ca.crt").write_text(authority.pem)
    signing = new_key()
    (directory / "service-accounts.key").write_text(private_pem(signing))
    (directory / "service-accounts.pub").write_text(public_pem(signing))
    for name, user, group in (
        ("admin", "admin", "system:masters"),
        ("controllers", "system:kube-controller-manager", ""),
        ("scheduler", "system:kube-scheduler", ""),
    ):
        (directory / f"{name}.kubeconfig").write_text(authority.kubeconfig(user, group, server))
    plane = Standalone(directory, directory / "admin.kubeconfig")
    with ExitStack() as processes:
        for name, command in (
            ("etcd", components.etcd(directory / "etcd", f"http://{HOST}:{etcd}", f"http://{HOST}:{peers}")),
            ("kube-apiserver", _api_server(directory, f"http://{HOST}:{etcd}", api)),
        ):
            plane.pids[name] = processes.enter_context(running(name, command, directory)).pid
        context = probe.client_context(directory / "ca.crt", directory / "admin.crt", directory / "admin.key")
        wait_until("the API server is ready", lambda: probe.responds(f"{server}/readyz", context))
        for name, command in (
            ("kube-controller-manager", _controllers(directory, controllers)),
            ("kube-scheduler", _scheduler(directory, scheduler)),
            ("kwok", _kwok(directory, fakes)),
        ):
            plane.pids[name] = processes.enter_context(running(name, command, directory)).pid
        account = f"{server}/api/v1/namespaces/default/serviceaccounts/default"
        wait_until("the default service account exists", lambda: probe.responds(account, context))
        yield plane


@contextmanager
def running(
    name: str, command: Sequence[str | Path], directory: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes its log to the directory, and ends with the block or with the test process."""
    with (directory / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | (environment or {}),
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(goal: str, is_reached: Callable[[], bool], seconds: float = READY_SECONDS) -> None:
    """Wait until a condition is true. Raises ClusterError if that takes too long."""
    deadline = time.monotonic() + seconds
    while not is_reached():
        if time.monotonic() > deadline:
            raise ClusterError(f"after {seconds:.0f} s it is not true that {goal}.")
        time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address on which nothing listens."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [item.getsockname()[1] for item in sockets]


def _api_server(directory: Path, etcd: str, port: int) -> components.Command:
    flags = (f"--secure-port={port}", "--endpoint-reconciler-type=none", "--authorization-mode=RBAC")
    return components.api_server(directory, etcd, HOST, SERVICES, ISSUER, *flags)


def _controllers(directory: Path, port: int) -> components.Command:
    kubeconfig, plugins = directory / "controllers.kubeconfig", directory / "volume-plugins"
    return components.controller_manager(directory, kubeconfig, plugins, f"--secure-port={port}")


def _scheduler(directory: Path, port: int) -> components.Command:
    return components.scheduler(directory, directory / "scheduler.kubeconfig", f"--secure-port={port}")


def _kwok(directory: Path, port: int) -> components.Command:
    return [
        binary("kwok"),
        f"--kubeconfig={directory / 'admin.kubeconfig'}",
        "--manage-all-nodes=true",
        "--node-lease-duration-seconds=40",
        "--cidr=10.246.0.0/16",
        f"--server-address={HOST}:{port}",
        *(f"--config={path}" for path in kwok.stages()),
    ]


def _node(name: str, cpu: str) -> dict[str, object]:
    capacity = {"cpu": cpu, "memory": "64Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "status": {"capacity": capacity, "allocatable": capacity},
    }
