"""MultiKueue runs a job in another cluster: two clusters with an operator and Kueue each."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.scheduling.conftest import cluster_with_operator, namespace
from tests.support.cluster_jobs import Jobs, tiny
from tests.support.cluster_queues import API, apply, queue, workload_condition
from tests.support.devcluster.kueue import kueue
from tests.support.devcluster.standalone import Standalone

NAMESPACE = "dispatched"


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Jobs]:
    """A namespace of the other cluster, with a queue of the same name."""
    with (
        cluster_with_operator(tmp_path) as operator,
        kueue(operator.plane.kubeconfig, tmp_path),
        namespace(operator.plane, NAMESPACE) as jobs,
        queue(jobs, cpu="1"),
    ):
        yield jobs


@pytest.mark.timeout(600)
def test_runs_in_the_other_cluster(queues: Standalone, worker: Jobs) -> None:
    with namespace(queues, NAMESPACE) as jobs:
        credentials = base64.b64encode(worker.cluster.kubeconfig.read_bytes()).decode()
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "worker", "namespace": "default"}}
        queues.kubectl("apply", "--filename=-", stdin=json.dumps(secret | {"data": {"kubeconfig": credentials}}))
        source = {"kubeConfig": {"locationType": "Secret", "location": "worker"}}
        parameters = {"apiGroup": API.split("/")[0], "kind": "MultiKueueConfig", "name": "clusters"}
        apply(
            jobs,
            {"kind": "MultiKueueCluster", "metadata": {"name": "worker"}, "spec": {"clusterSource": source}},
            {"kind": "MultiKueueConfig", "metadata": {"name": "clusters"}, "spec": {"clusters": ["worker"]}},
            {
                "kind": "AdmissionCheck",
                "metadata": {"name": "dispatch"},
                "spec": {"controllerName": "kueue.x-k8s.io/multikueue", "parameters": parameters},
            },
        )
        with queue(jobs, cpu="1", checks=["dispatch"]) as name:
            job = tiny("job", "s3://bucket/job", nodes=2, scheduling={"queueName": name})
            job["spec"]["managedBy"] = "kueue.x-k8s.io/multikueue"
            jobs.apply(job)
            jobs.wait_for_phase("job", "Running")
            assert jobs.pods("job") == {}
            assert len(worker.pods("job")) == 2
            assert worker.status("job")["phase"] == "Running"
            assert workload_condition(worker, "job", "PodsReady") == "True"
            jobs.kubectl("delete", "ftj", "job", "--wait=true")
            worker.kubectl("wait", "ftj", "--all", "--for=delete", "--timeout=60s")
