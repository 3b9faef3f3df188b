"""Elastic jobs and the scale subresource, with the real API server, scheduler and controllers, and fake nodes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.cluster_jobs import Jobs, tiny
from tests.support.devcluster.errors import ClusterError

pytestmark = pytest.mark.timeout(600)


def elastic(name: str, nodes: int = 2, cpu: str = "1100m") -> dict[str, Any]:
    """A job of whose pods one fits on each node of two CPUs. It gets smaller after two seconds, and grows after one."""
    resources = {"requests": {"cpu": cpu}, "limits": {"cpu": 2}}
    policy = {"terminationGracePeriodSeconds": 1, "elastic": {"shrinkAfterSeconds": 2, "growAfterSeconds": 1}}
    workers = {"minNodes": 1, "resources": resources}
    return tiny(name, f"s3://bucket/{name}", nodes=nodes, workers=workers, runPolicy=policy, training={"batchSize": 8})


def occupy(jobs: Jobs, node: str) -> None:
    """Use CPU of a node with another pod."""
    container = {"name": "c", "image": "none", "resources": {"requests": {"cpu": "1200m"}}}
    metadata, spec = {"name": "other"}, {"nodeName": node, "containers": [container]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    jobs.kubectl("apply", "--filename=-", stdin=json.dumps(body))


def uses(status: dict[str, Any], nodes: int) -> bool:
    """Whether the run trains on this many nodes."""
    workers = status.get("workers", {})
    return status.get("phase") == "Running" and workers.get("replicas") == nodes == workers.get("ready")


def scale(jobs: Jobs, name: str, nodes: int) -> None:
    """What `kubectl scale` and autoscalers do."""
    jobs.kubectl("scale", "ftj", name, f"--replicas={nodes}")


def nodes_option(jobs: Jobs, name: str) -> str:
    """How many nodes the run uses according to the command line of its first pod."""
    command = jobs.pods(name)[f"{name}-0"]["spec"]["containers"][0]["command"]
    return str(command[command.index("--nodes") + 1])


def test_runs_where_only_one_pod_fits_and_grows(jobs: Jobs) -> None:
    occupy(jobs, "node-1")
    name = jobs.apply(elastic("elastic"))
    jobs.wait(name, "one node", lambda status: uses(status, 1))
    assert nodes_option(jobs, name) == "1"
    status = jobs.status(name)
    assert status["workers"]["summary"] == "1/2"
    assert status["reason"] == "RunningSmaller"
    jobs.wait(name, "a pod that waits for a node", lambda _: f"{name}-1" in jobs.pods(name))
    jobs.kubectl("delete", "pod", "other", "--wait=true")
    jobs.wait(name, "two nodes", lambda status: uses(status, 2))
    assert nodes_option(jobs, name) == "2"
    status = jobs.status(name)
    assert (status["elastic"]["resizes"], status["restarts"]["total"], status.get("reason")) == (2, 0, None)


def test_kubectl_scale(jobs: Jobs) -> None:
    name = jobs.apply(elastic("scaled", cpu="100m"))
    jobs.wait(name, "two nodes", lambda status: uses(status, 2))
    scale(jobs, name, 1)
    jobs.wait(name, "one node", lambda status: uses(status, 1) and set(jobs.pods(name)) == {f"{name}-0"})
    scale(jobs, name, 4)
    jobs.wait(name, "four nodes", lambda status: uses(status, 4))
    assert nodes_option(jobs, name) == "4"
    path = f"/apis/finetune-operator.io/v1alpha1/namespaces/{jobs.namespace}/finetunejobs/{name}/scale"
    body = json.loads(jobs.kubectl("get", "--raw", path))
    assert (body["spec"]["replicas"], body["status"]["replicas"]) == (4, 4)
    selected = json.loads(jobs.kubectl("get", "pods", f"--selector={body['status']['selector']}", "--output=json"))["items"]
    assert len(selected) == 4
    assert jobs.status(name)["restarts"]["total"] == 0


@pytest.mark.parametrize(
    ("name", "created", "nodes", "refusal"),
    [
        ("below", {"minNodes": 2, "nodes": 4}, 1, "nodes must not be below minNodes"),
        ("indivisible", {"minNodes": 1, "nodes": 2}, 3, "batchSize must be a multiple"),
        ("fixed", {"nodes": 2}, 1, "nodes can change only while the job is suspended"),
    ],
)
def test_refuses_to_scale(jobs: Jobs, name: str, created: dict[str, Any], nodes: int, refusal: str) -> None:
    jobs.apply(tiny(name, f"s3://bucket/{name}", training={"batchSize": 8}, workers=created))
    with pytest.raises(ClusterError, match=refusal):
        scale(jobs, name, nodes)
