"""MultiKueue runs a job in another cluster: two clusters with an operator and Kueue each."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from tests.integration.scheduling.conftest import cluster_with_operator, namespace
from tests.support.cluster_jobs import Jobs, tiny
from tests.support.cluster_queues import API, QUEUE, apply, queue, quota, workload, workload_condition
from tests.support.devcluster.kueue import kueue
from tests.support.devcluster.standalone import Standalone
from tests.support.fake_kubelet import complete

pytestmark = pytest.mark.timeout(600)


class Clusters(NamedTuple):
    """A namespace in both clusters, with a queue of the same name. That of the worker has quota for one job of two pods."""

    manager: Jobs
    worker: Jobs


@pytest.fixture(scope="module")
def worker_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """The other cluster."""
    directory = tmp_path_factory.mktemp("worker")
    with cluster_with_operator(directory) as operator, kueue(operator.plane.kubeconfig, directory):
        yield operator.plane


@pytest.fixture(scope="module")
def manager_plane(queues: Standalone, worker_plane: Standalone) -> Standalone:
    """The cluster whose Kueue may use the other one."""
    credentials = base64.b64encode(worker_plane.kubeconfig.read_bytes()).decode()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "worker", "namespace": "default"}}
    queues.kubectl("apply", "--filename=-", stdin=json.dumps(secret | {"data": {"kubeconfig": credentials}}))
    source = {"kubeConfig": {"locationType": "Secret", "location": "worker"}}
    parameters = {"apiGroup": API.split("/")[0], "kind": "MultiKueueConfig", "name": "clusters"}
    apply(
        Jobs(queues, "default", {}),
        {"kind": "MultiKueueCluster", "metadata": {"name": "worker"}, "spec": {"clusterSource": source}},
        {"kind": "MultiKueueConfig", "metadata": {"name": "clusters"}, "spec": {"clusters": ["worker"]}},
        {
            "kind": "AdmissionCheck",
            "metadata": {"name": "dispatch"},
            "spec": {"controllerName": "kueue.x-k8s.io/multikueue", "parameters": parameters},
        },
    )
    return queues


@pytest.fixture
def clusters(request: pytest.FixtureRequest, manager_plane: Standalone, worker_plane: Standalone) -> Iterator[Clusters]:
    """Namespaces for one test."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_"))[:50].strip("-")
    with (
        namespace(worker_plane, name) as worker,
        namespace(manager_plane, name) as manager,
        queue(worker, cpu="300m"),
        queue(manager, cpu="1", checks=["dispatch"]),
    ):
        yield Clusters(manager, worker)


def job(name: str, **scheduling: str) -> dict[str, Any]:
    """A job with two pods that request 100m of CPU each."""
    policy = {"terminationGracePeriodSeconds": 1}
    return tiny(name, f"s3://bucket/{name}", nodes=2, scheduling={"queueName": QUEUE} | scheduling, runPolicy=policy)


def dispatched(**scheduling: str) -> dict[str, Any]:
    """A job that MultiKueue runs in the other cluster."""
    document = job("job", **scheduling)
    document["spec"]["managedBy"] = "kueue.x-k8s.io/multikueue"
    return document


def dispatch(clusters: Clusters, **scheduling: str) -> None:
    """Run a job in the other cluster."""
    clusters.manager.apply(dispatched(**scheduling))
    clusters.manager.wait_for_phase("job", "Running")


def jobs_of(jobs: Jobs) -> list[str]:
    """The names of all jobs."""
    return jobs.kubectl("get", "ftj", "--output=name").split()


def test_runs_in_the_other_cluster(clusters: Clusters) -> None:
    manager, worker = clusters
    dispatch(clusters)
    assert manager.pods("job") == {}
    assert len(worker.pods("job")) == 2
    assert worker.status("job")["phase"] == "Running"
    assert workload_condition(worker, "job", "PodsReady") == "True"
    manager.kubectl("delete", "ftj", "job", "--wait=true")
    worker.kubectl("wait", "ftj", "--all", "--for=delete", "--timeout=60s")


def test_ends_in_both_clusters(clusters: Clusters) -> None:
    """MultiKueue copies the status, and then deletes the job in the other cluster; nothing runs it again."""
    manager, worker = clusters
    dispatch(clusters)
    complete(worker, "job")
    status = manager.wait_for_phase("job", "Succeeded")
    assert [item["status"] for item in status["conditions"] if item["type"] == "Complete"] == ["True"]
    manager.wait("job", "a finished Workload", lambda _: workload_condition(manager, "job", "Finished") == "True")
    manager.wait("job", "the end of the copy", lambda _: jobs_of(worker) == [])
    time.sleep(5)
    assert (manager.pods("job"), worker.pods("job"), jobs_of(worker)) == ({}, {}, [])
    assert manager.status("job") == status
    finished = [item for item in workload(manager, "job")["status"]["conditions"] if item["type"] == "Finished"]
    assert [item["reason"] for item in finished] == ["Succeeded"]


def test_is_deleted_after_its_time_to_live(clusters: Clusters) -> None:
    """The copy is left to MultiKueue, which would create it again."""
    manager, worker = clusters
    document = dispatched()
    document["spec"]["runPolicy"]["ttlSecondsAfterFinished"] = 5
    manager.apply(document)
    manager.wait_for_phase("job", "Running")
    complete(worker, "job")
    manager.wait_for_phase("job", "Succeeded")
    manager.kubectl("wait", "ftj/job", "--for=delete", "--timeout=60s")
    worker.kubectl("wait", "ftj/job", "--for=delete", "--timeout=60s")


def test_evicted_in_the_other_cluster_comes_back(clusters: Clusters) -> None:
    """A job of the other cluster preempts it; it is dispatched again, and runs when there is quota."""
    manager, worker = clusters
    dispatch(clusters, workloadPriorityClass="low")
    before = {pod["metadata"]["uid"] for pod in worker.pods("job").values()}
    worker.apply(job("other", workloadPriorityClass="high"))
    worker.wait("other", "two pods", lambda _: len(worker.pods("other")) == 2)
    manager.wait("job", "its place in the queue", lambda status: status["phase"] == "Pending")
    assert worker.pods("job") == {}
    assert quota(manager.status("job"))[0] == "False"
    complete(worker, "other")
    worker.wait("other", "the pods of the evicted job", lambda _: len(worker.pods("job")) == 2)
    after = {pod["metadata"]["uid"] for pod in worker.pods("job").values()}
    assert not before & after
    manager.wait_for_phase("job", "Running")
    assert manager.status("job")["restarts"]["total"] == 0


def test_suspended_job_keeps_its_quota_while_its_pods_stop(clusters: Clusters) -> None:
    """MultiKueue deletes the job in the other cluster at once. Its pods have their grace period to store a checkpoint."""
    manager, worker = clusters
    dispatch(clusters)
    hold_pod(worker, "job-1", ["example.com/stores-a-checkpoint"])
    manager.patch("job", {"runPolicy": {"suspend": True}})
    manager.wait("job", "the end of the copy", lambda _: jobs_of(worker) == [])
    assert set(worker.pods("job")) == {"job-1"}
    assert workload_condition(manager, "job", "QuotaReserved") == "True"
    manager.wait_for_phase("job", "Suspended")
    assert workload_condition(manager, "job", "QuotaReserved") == "False"
    hold_pod(worker, "job-1", None)
    manager.patch("job", {"runPolicy": {"suspend": False}})
    manager.wait("job", "new pods", lambda _: len(worker.pods("job")) == 2)
    manager.wait_for_phase("job", "Running")


def hold_pod(jobs: Jobs, pod: str, finalizers: list[str] | None) -> None:
    """Keep a pod that is deleted, or let it go."""
    jobs.kubectl("patch", "pod", pod, "--type=merge", f"--patch={json.dumps({'metadata': {'finalizers': finalizers}})}")
