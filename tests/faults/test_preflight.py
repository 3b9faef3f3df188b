"""A node that fails the preflight check."""

from __future__ import annotations

import signal
import time
import uuid
from pathlib import Path

import pytest
from tests.support.cluster_jobs import Jobs, tiny
from tests.support.devcluster import faults
from tests.support.reliability import Measure
from tests.support.waiting import wait_for, wait_until

CHECK_SECONDS = 60


@pytest.mark.timeout(900)
def test_hanging_node(jobs: Jobs, measure: Measure) -> None:
    """The pod moves to another node before any rank has started, and the job does not use the node again."""
    job = tiny(
        "preflight", f"s3://finetune/faults/{uuid.uuid4().hex[:8]}", nodes=2,
        runPolicy={"backoffLimit": 0, "preflight": {"timeoutSeconds": CHECK_SECONDS, "minimumRatio": 0.01}},
    )  # fmt: skip
    name = jobs.apply(job)
    node = _stop_check(jobs, f"{name}-1")
    stopped_at = time.monotonic()
    wait_until(lambda: jobs.status(name).get("avoidedNodes"), "an avoided node", seconds=CHECK_SECONDS + 120)
    [avoided] = jobs.status(name)["avoidedNodes"]
    assert avoided["name"] == node
    assert f"only 0 of 1 devices were measured within {CHECK_SECONDS} s" in avoided["message"]
    assert f"Node {node} is avoided until" in jobs.kubectl("describe", "ftj", name)
    wait_until(lambda: jobs.status(name)["workers"]["ready"] == 2, "ranks on both nodes", seconds=240)
    measure.record(6, "a node hangs in the preflight check, limit 60 s", time.monotonic() - stopped_at)
    status = jobs.wait_for_phase(name, "Succeeded", seconds=300)
    assert (status["restarts"]["failures"], status["restarts"]["disruptions"]) == (0, 1)
    used = {pod["spec"]["nodeName"] for pod in jobs.pods(name).values() if pod["status"]["phase"] == "Succeeded"}
    assert node not in used


def _stop_check(jobs: Jobs, pod_name: str) -> str:
    """Stop the process that measures the node of a pod, as a hanging GPU would; returns the name of the node."""

    def stopped() -> str | None:
        pod = jobs.pods("preflight").get(pod_name)
        if pod is None or pod["status"]["phase"] != "Running":
            return None
        node = str(pod["spec"]["nodeName"])
        measuring = [pid for pid in faults.container_pids(node, pod["metadata"]["uid"]) if _measures(pid)]
        faults.send_signal(measuring, signal.SIGSTOP)
        return node if measuring else None

    return wait_for(stopped, "the check of the node", 240)


def _measures(pid: int) -> bool:
    try:
        return b"node_benchmark" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
