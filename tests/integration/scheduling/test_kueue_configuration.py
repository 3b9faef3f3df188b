"""Queued jobs with a Kueue that evicts jobs which are not ready in time, and also manages pods that name no queue."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.scheduling.conftest import cluster_with_operator, namespace
from tests.support.cluster_jobs import Jobs, tiny
from tests.support.cluster_queues import queue, quota, workload, workload_condition
from tests.support.devcluster.kueue import FRAMEWORK, KINDS, kueue
from tests.support.devcluster.standalone import Standalone

pytestmark = pytest.mark.timeout(900)

MANAGED_LABEL = "kueue.x-k8s.io/managed"
READY_SECONDS = 15
CONFIGURATION: dict[str, Any] = {
    "waitForPodsReady": {
        "timeout": f"{READY_SECONDS}s",
        "requeuingStrategy": {"backoffBaseSeconds": 1, "backoffLimitCount": 1},
    },
    "manageJobsWithoutQueueName": True,
    "managedJobsNamespaceSelector": {"matchLabels": {"managed": "true"}},
    "integrations": {"frameworks": ["batch/job", "pod"], "externalFrameworks": [FRAMEWORK]},
}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """A cluster with an operator and this Kueue."""
    with (
        cluster_with_operator(tmp_path_factory.mktemp("strict")) as operator,
        kueue(operator.plane.kubeconfig, operator.plane.directory, CONFIGURATION, (*KINDS, "pods")),
    ):
        yield operator.plane


@pytest.fixture
def jobs(request: pytest.FixtureRequest, strict: Standalone) -> Iterator[Jobs]:
    """A namespace that Kueue manages, for the jobs of one test."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_"))[:40].strip("-")
    with namespace(strict, name) as test_jobs:
        test_jobs.kubectl("label", "namespace", name, "managed=true")
        yield test_jobs


def job(name: str, queue_name: str, **template: Any) -> dict[str, Any]:
    """A job with two pods, which waits longer for its pods than Kueue does."""
    return tiny(
        name, f"s3://bucket/{name}", nodes=2, workers={"template": template}, scheduling={"queueName": queue_name},
        runPolicy={"pendingTimeoutSeconds": 3600},
    )  # fmt: skip


def uids(jobs: Jobs, name: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in jobs.pods(name).values()}


def is_deactivated(jobs: Jobs, name: str) -> bool:
    """Whether Kueue has deactivated the Workload, and the operator has given its quota back."""
    item = workload(jobs, name)
    return item["spec"].get("active") is False and "admission" not in item["status"]


def test_job_whose_pods_do_not_start_is_evicted_queued_again_and_deactivated(jobs: Jobs) -> None:
    """Kueue takes the quota back after its timeout, twice, and then waits for a person. Nothing counts as a failure."""
    with queue(jobs, cpu="300m") as queue_name:
        name = jobs.apply(job("stuck", queue_name, nodeSelector={"example.com/rack": "none"}))
        jobs.wait(name, "two pods", lambda _: len(uids(jobs, name)) == 2)
        first = uids(jobs, name)
        jobs.wait(name, "PodsReady of the Workload", lambda _: workload_condition(jobs, name, "PodsReady") == "False")
        jobs.wait(name, "its eviction", lambda status: quota(status)[0] == "False", seconds=READY_SECONDS + 60)
        jobs.wait(name, "new pods after the back-off", lambda _: len(uids(jobs, name) - first) == 2)
        jobs.wait(name, "its deactivation", lambda _: is_deactivated(jobs, name), seconds=READY_SECONDS + 60)
        jobs.wait(name, "the reason", lambda status: (quota(status)[1], status["reason"]) == ("Deactivated", "Deactivated"))
        status = jobs.status(name)
        assert (status["phase"], status["restarts"]["total"], jobs.pods(name)) == ("Pending", 0, {})
        assert "set its spec.active to true" in jobs.condition(name, "QuotaReserved")["message"]

        patch = json.dumps({"spec": {"active": True}})
        item = workload(jobs, name)["metadata"]["name"]
        jobs.kubectl("patch", "workloads.kueue.x-k8s.io", item, "--type=merge", f"--patch={patch}")
        jobs.wait(name, "pods again", lambda _: len(uids(jobs, name)) == 2)


def test_job_that_runs_is_not_evicted_and_its_pods_are_not_queued_a_second_time(jobs: Jobs) -> None:
    bare = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare"}}
    jobs.kubectl("apply", "--filename=-", stdin=json.dumps(bare | {"spec": {"containers": [{"name": "c", "image": "none"}]}}))
    managed = json.loads(jobs.kubectl("get", "pod", "bare", "--output=json"))
    assert {"name": "kueue.x-k8s.io/admission"} in managed["spec"]["schedulingGates"], "Kueue manages pods without a queue"

    with queue(jobs, cpu="300m") as queue_name:
        name = jobs.apply(job("runs", queue_name))
        jobs.wait_for_phase(name, "Running")
        before = uids(jobs, name)
        for pod in jobs.pods(name).values():
            assert "schedulingGates" not in pod["spec"]
            assert MANAGED_LABEL not in pod["metadata"]["labels"]
        jobs.wait(name, "PodsReady of the Workload", lambda _: workload_condition(jobs, name, "PodsReady") == "True")
        transition = next(item for item in workload(jobs, name)["status"]["conditions"] if item["type"] == "PodsReady")
        assert transition["reason"] == "Started"
        # A pod that is replaced makes the job wait for its recovery, within the same limit.
        jobs.kubectl("delete", "pod", f"{name}-1", "--wait=true")
        jobs.wait(name, "a replacement", lambda status: status["restarts"]["disruptions"] == 1)
        jobs.wait_for_phase(name, "Running")
        jobs.wait(name, "PodsReady of the Workload", lambda _: workload_condition(jobs, name, "PodsReady") == "True")
        assert len(uids(jobs, name) & before) == 1
        assert quota(jobs.status(name)) == ("True", "Admitted")
    jobs.kubectl("delete", "pod", "bare", "--wait=false")
