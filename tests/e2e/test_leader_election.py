"""Leader election of real operator processes at a real API server, whose leader is killed, suspended and stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.cluster_jobs import tiny
from tests.support.devcluster.definitions import wait_until_established
from tests.support.devcluster.session import Cluster
from tests.support.recording_proxy import RecordingProxy

ROOT = Path(__file__).parents[2]
CRD = ROOT / "manifests/crds/finetunejobs.finetune-operator.io.yaml"
NAMESPACE = "leader-election"
TAKEOVER_SECONDS = 15
LEASE_SECONDS = 10


@dataclass
class Replica:
    """An operator process, whose requests go through a proxy of its own."""

    process: subprocess.Popen[bytes]
    proxy: RecordingProxy
    port: int
    log: Path

    def is_leader(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=2) as response:
                return b"\nfinetune_operator_leader 1.0" in response.read()
        except OSError:
            return False

    def is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False


@dataclass
class Replicas:
    """The replicas of one election, in a namespace with jobs whose pods no node can run."""

    cluster: Cluster
    folder: Path
    lease: str
    stack: ExitStack

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl(f"--namespace={NAMESPACE}", *arguments, stdin=stdin)

    def start(self, name: str, port: int) -> Replica:
        proxy = self.stack.enter_context(RecordingProxy(self.cluster.kubeconfig))
        log = self.folder / f"{name}.log"
        environment = os.environ | {"KUBECONFIG": str(proxy.client_kubeconfig(self.folder / f"{name}.yaml"))}
        command = [
            sys.executable, "-m", "finetune_operator", f"--lease={NAMESPACE}/{self.lease}", f"--namespaces={NAMESPACE}",
            "--http-address=127.0.0.1", f"--http-port={port}",
        ]  # fmt: skip
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        self.stack.callback(process.send_signal, signal.SIGCONT)
        return Replica(process, proxy, port, log)

    def start_both(self) -> tuple[Replica, Replica]:
        """A leader and a healthy standby."""
        leader = self.start("first", 18081)
        wait_until(leader.is_leader, "the first replica leads", leader.log)
        standby = self.start("second", 18082)
        wait_until(standby.is_healthy, "the standby is healthy", standby.log)
        assert not standby.is_leader()
        return leader, standby

    def create_job(self, name: str) -> None:
        """Create a job that writes go to: its pods stay unscheduled, so no node is needed."""
        job = tiny(name, "s3://finetune/none", workers={"template": {"nodeSelector": {"no-such": "node"}}})
        del job["spec"]["checkpoint"]["credentials"]
        self.kubectl("apply", "--filename=-", stdin=json.dumps(job))

    def pods(self) -> list[dict[str, Any]]:
        pods: list[dict[str, Any]] = json.loads(self.kubectl("get", "pods", "--output=json"))["items"]
        return pods

    def has_pod(self, job: str) -> bool:
        return any(pod["metadata"]["name"] == f"{job}-0" for pod in self.pods())


@pytest.fixture
def replicas(cluster: Cluster, tmp_path: Path) -> Iterator[Replicas]:
    """Replicas with a Lease of their own, which watch a namespace of their own."""
    cluster.kubectl("apply", f"--filename={CRD}")
    wait_until_established(cluster.kubectl, "finetunejobs.finetune-operator.io")
    cluster.kubectl("create", "namespace", NAMESPACE)
    try:
        with ExitStack() as stack:
            yield Replicas(cluster, tmp_path, f"lease-{uuid.uuid4().hex[:8]}", stack)
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=true")
        cluster.kubectl("delete", f"--filename={CRD}")


def wait_until(condition: Callable[[], bool], description: str, log: Path, *, seconds: float = 60) -> float:
    """Wait for a condition, and return the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() < started + seconds, f"not within {seconds} s: {description}\n{log.read_text()[-3000:]}"
        time.sleep(0.1)
    return time.monotonic() - started


def take_over(replicas: Replicas, standby: Replica, what: str) -> float:
    seconds = wait_until(standby.is_leader, "the standby takes over", standby.log, seconds=TAKEOVER_SECONDS)
    print(f"{what}: the standby leads after {seconds:.1f} s")
    replicas.create_job("after")
    wait_until(lambda: replicas.has_pod("after"), "the new leader reconciles jobs", standby.log)
    return seconds


def test_standby_takes_over_from_a_killed_leader(replicas: Replicas) -> None:
    leader, standby = replicas.start_both()
    replicas.create_job("before")
    wait_until(lambda: replicas.has_pod("before"), "the leader reconciles jobs", leader.log)
    assert standby.proxy.writes == [], "a standby writes nothing, not even to the Lease"
    leader.process.kill()
    assert take_over(replicas, standby, "SIGKILL") <= TAKEOVER_SECONDS
    assert sorted(pod["metadata"]["name"] for pod in replicas.pods()) == ["after-0", "before-0"]


def test_suspended_leader_writes_nothing_when_it_continues(replicas: Replicas) -> None:
    leader, standby = replicas.start_both()
    # Many jobs, so that the leader is stopped between two writes and would go on with the next one.
    for index in range(10):
        replicas.create_job(f"before-{index}")
    leader.process.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    assert take_over(replicas, standby, "SIGSTOP") <= TAKEOVER_SECONDS
    leader.process.send_signal(signal.SIGCONT)
    assert leader.process.wait(timeout=15) == 1, "it has lost the Lease and exits"
    # What it was about to send when it was stopped still arrives, and is rejected because the standby has written since.
    accepted = [write for write in leader.proxy.writes_to_jobs() if write.status < 300]
    assert [write for write in accepted if write.time > stopped + LEASE_SECONDS] == [], leader.log.read_text()[-3000:]
    first = min(write.time for write in standby.proxy.writes_to_jobs())
    last = max((write.time for write in accepted), default=0.0)
    assert last < first, "never two writers"
    names = sorted(pod["metadata"]["name"] for pod in replicas.pods())
    assert names == sorted(["after-0", *(f"before-{index}-0" for index in range(10))])


def test_leader_hands_over_when_it_is_stopped(replicas: Replicas) -> None:
    leader, standby = replicas.start_both()
    leader.process.terminate()
    seconds = take_over(replicas, standby, "SIGTERM")
    assert seconds <= 6, "the Lease is released, so nobody waits until it expires"
    assert leader.process.wait(timeout=20) == 0
