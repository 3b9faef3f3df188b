"""Fixtures of the tests with other controllers: control planes with fake nodes, an operator for each, and Kueue."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.cluster_jobs import SECRET, Jobs
from tests.support.devcluster import gobuild
from tests.support.devcluster.definitions import wait_until_established
from tests.support.devcluster.errors import ClusterError
from tests.support.devcluster.kueue import kueue
from tests.support.devcluster.standalone import HOST, Standalone, control_plane, free_ports, running

from finetune_operator.codegen.crd import CRD_NAME, build_crd


@dataclass
class Operator:
    """An operator as a process of this machine."""

    plane: Standalone
    port: int
    process: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Start the process."""
        command = [sys.executable, "-m", "finetune_operator", f"--http-address={HOST}", f"--http-port={self.port}"]
        environment = {"KUBECONFIG": str(self.plane.kubeconfig)}
        self.process.enter_context(running("operator", command, self.plane.directory, environment))

    def stop(self) -> None:
        """End the process and wait for its end."""
        self.process.close()


@contextmanager
def cluster_with_operator(directory: Path) -> Iterator[Operator]:
    """A control plane with two fake nodes of two CPUs, and an operator."""
    gobuild.build()
    with control_plane(directory) as plane:
        plane.add_nodes({"node-1": "2", "node-2": "2"})
        plane.kubectl("apply", "--filename=-", stdin=json.dumps(build_crd()))
        wait_until_established(plane.kubectl, CRD_NAME)
        [port] = free_ports(1)
        operator = Operator(plane, port)
        with operator.process:
            operator.start()
            yield operator


@contextmanager
def namespace(plane: Standalone, name: str) -> Iterator[Jobs]:
    """A namespace for jobs, with the Secret that their documents name."""
    plane.kubectl("create", "namespace", name)
    plane.kubectl("create", "secret", "generic", SECRET, f"--namespace={name}")
    jobs = Jobs(plane, name, {})
    try:
        yield jobs
    finally:
        jobs.kubectl("delete", "ftj", "--all", "--wait=true")
        jobs.kubectl("delete", "pods", "--all", "--wait=false")


@pytest.fixture(scope="session")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The operator of a cluster."""
    with cluster_with_operator(tmp_path_factory.mktemp("cluster")) as running_operator:
        yield running_operator


@pytest.fixture(scope="session")
def plane(operator: Operator) -> Standalone:
    """A cluster with an operator."""
    return operator.plane


@pytest.fixture(scope="session")
def queues(plane: Standalone) -> Iterator[Standalone]:
    """The cluster with Kueue."""
    if os.geteuid() != 0:
        raise ClusterError("Kueue runs in a mount namespace of its own: run the test as root.")
    with kueue(plane.kubeconfig, plane.directory):
        yield plane


@pytest.fixture
def jobs(request: pytest.FixtureRequest, plane: Standalone) -> Iterator[Jobs]:
    """A namespace for the jobs of one test."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_"))[:60].strip("-")
    with namespace(plane, name) as test_jobs:
        yield test_jobs
