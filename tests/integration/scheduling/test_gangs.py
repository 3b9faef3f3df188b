"""Gang scheduling of Kubernetes 1.37, with its real scheduler: all pods of a job are bound, or none."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from tests.support.cluster_jobs import Jobs, tiny
from tests.support.cluster_queues import queue, quota

pytestmark = pytest.mark.timeout(600)


def gang(name: str, cpu: str, **scheduling: str) -> dict[str, Any]:
    """A job with two pods that request this much CPU each."""
    resources = {"requests": {"cpu": cpu}, "limits": {"cpu": 2}}
    scheduling["gang"] = "Native"
    return tiny(name, f"s3://bucket/{name}", nodes=2, scheduling=scheduling, workers={"resources": resources})


def bound(jobs: Jobs, name: str) -> int:
    """The number of pods of a job that have a node."""
    return len([pod for pod in jobs.pods(name).values() if pod["spec"].get("nodeName")])


def occupy(jobs: Jobs, node: str, cpu: str, name: str = "other") -> None:
    """Use CPU of a node with another pod."""
    container = {"name": "c", "image": "none", "resources": {"requests": {"cpu": cpu}}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [container]},
    }
    jobs.kubectl("apply", "--filename=-", stdin=json.dumps(pod))


def test_gang_that_does_not_fit_binds_no_pod(jobs: Jobs) -> None:
    """One of the pods would fit; both are bound as soon as there is space for both."""
    occupy(jobs, "node-1", "1200m")
    name = jobs.apply(gang("gang", "1100m"))

    def is_refused(_: dict[str, Any]) -> bool:
        group = json.loads(jobs.kubectl("get", "podgroups.scheduling.k8s.io", "--output=json"))["items"]
        return any(item.get("status", {}).get("conditions", [{}])[0].get("reason") == "Unschedulable" for item in group)

    jobs.wait(name, "an unschedulable PodGroup", is_refused)
    assert (len(jobs.pods(name)), bound(jobs, name)) == (2, 0)
    jobs.kubectl("delete", "pod", "other", "--wait=true")
    jobs.wait(name, "two bound pods", lambda _: bound(jobs, name) == 2)


def test_two_gangs_where_three_pods_fit_never_deadlock(jobs: Jobs) -> None:
    """One job gets both of its pods; the other waits without any, and gets both when the first one is gone."""
    occupy(jobs, "node-2", "1")
    names = [jobs.apply(gang(name, "900m")) for name in ("a", "b")]
    jobs.wait(names[0], "two bound pods", lambda _: sum(bound(jobs, name) for name in names) >= 2)
    time.sleep(5)  # the third place stays free
    winner, loser = sorted(names, key=lambda name: -bound(jobs, name))
    assert (bound(jobs, winner), bound(jobs, loser)) == (2, 0)
    jobs.kubectl("delete", "ftj", winner, "--wait=true")
    jobs.wait(loser, "two bound pods", lambda _: bound(jobs, loser) == 2)
    jobs.wait_for_phase(loser, "Running")


def test_suspended_gang_comes_back(jobs: Jobs) -> None:
    name = jobs.apply(gang("gang", "500m"))
    jobs.wait_for_phase(name, "Running")
    jobs.patch(name, {"runPolicy": {"suspend": True}})
    jobs.wait(name, "no pods", lambda _: jobs.pods(name) == {})
    jobs.patch(name, {"runPolicy": {"suspend": False}})
    jobs.wait(name, "two bound pods", lambda _: bound(jobs, name) == 2)


def pod_group(jobs: Jobs, name: str) -> dict[str, Any]:
    """The PodGroup of a job."""
    group: dict[str, Any] = json.loads(jobs.kubectl("get", "podgroups.scheduling.k8s.io", name, "--output=json"))
    return group


def test_changed_gang_comes_back(jobs: Jobs) -> None:
    """The priority class of a PodGroup cannot change, so a resumed job gets another PodGroup; its number of pods can."""
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "urgent"}, "value": 1000}
    jobs.kubectl("apply", "--filename=-", stdin=json.dumps(priority))
    name = jobs.apply(gang("gang", "400m"))
    jobs.wait_for_phase(name, "Running")
    first = pod_group(jobs, name)
    jobs.patch(name, {"runPolicy": {"suspend": True}})
    jobs.wait(name, "no pods", lambda _: jobs.pods(name) == {})
    more_nodes = {"workers": {"nodes": 4}, "training": {"microBatchSize": 1}}
    jobs.patch(name, {**more_nodes, "runPolicy": {"suspend": False}})
    jobs.wait(name, "four bound pods", lambda _: bound(jobs, name) == 4)
    second = pod_group(jobs, name)
    assert second["spec"]["schedulingPolicy"] == {"gang": {"minCount": 4}}
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    jobs.patch(name, {"runPolicy": {"suspend": True}})
    jobs.wait(name, "no pods", lambda _: jobs.pods(name) == {})
    template = {"template": {"priorityClassName": "urgent"}}
    jobs.patch(name, {"workers": template | {"nodes": 2}, "runPolicy": {"suspend": False}})
    jobs.wait(name, "two bound pods", lambda _: bound(jobs, name) == 2, seconds=60)
    third = pod_group(jobs, name)
    assert third["spec"]["schedulingPolicy"] == {"gang": {"minCount": 2}}
    assert (third["spec"]["priorityClassName"], third["spec"]["priority"]) == ("urgent", 1000)
    assert {pod["spec"]["priority"] for pod in jobs.pods(name).values()} == {1000}


@pytest.mark.usefixtures("queues")
def test_queued_gang_is_admitted_and_then_bound_as_a_whole(jobs: Jobs) -> None:
    """Kueue decides by quota, the scheduler by the space on nodes; pods exist from the admission on."""
    occupy(jobs, "node-1", "1200m")
    with queue(jobs, cpu="2200m") as name:
        first = jobs.apply(gang("first", "1100m", queueName=name))
        second = jobs.apply(gang("second", "1100m", queueName=name))
        jobs.wait(first, "two pods", lambda _: len(jobs.pods(first)) == 2)
        jobs.wait(first, "the reason", lambda status: status.get("reason") == "Unschedulable")
        assert (bound(jobs, first), quota(jobs.status(first))) == (0, ("True", "Admitted"))
        jobs.kubectl("delete", "pod", "other", "--wait=true")
        jobs.wait(first, "two bound pods", lambda _: bound(jobs, first) == 2)
        jobs.wait_for_phase(first, "Running")
        assert jobs.pods(second) == {}
        jobs.kubectl("delete", "ftj", first, "--wait=true")
        jobs.wait(second, "two bound pods", lambda _: bound(jobs, second) == 2)


def test_elastic_gang(jobs: Jobs) -> None:
    """No pod is bound where fewer than minNodes fit; the run starts as soon as they do, and grows."""
    occupy(jobs, "node-1", "1200m", "a")
    occupy(jobs, "node-2", "1", "b")
    document = gang("elastic", "900m")
    spec = document["spec"]
    spec["workers"] |= {"nodes": 4, "minNodes": 2}
    spec["training"] |= {"batchSize": 8}
    spec["runPolicy"] = {
        "terminationGracePeriodSeconds": 1, "elastic": {"shrinkAfterSeconds": 2, "growAfterSeconds": 1},
    }  # fmt: skip
    name = jobs.apply(document)
    jobs.wait(name, "four pods", lambda _: len(jobs.pods(name)) == 4)
    time.sleep(5)  # longer than shrinkAfterSeconds
    assert (bound(jobs, name), pod_group(jobs, name)["spec"]["schedulingPolicy"]) == (0, {"gang": {"minCount": 2}})
    jobs.kubectl("delete", "pod", "a", "--wait=true")

    def uses(status: dict[str, Any], nodes: int) -> bool:
        workers = status.get("workers", {})
        return status.get("phase") == "Running" and workers.get("replicas") == nodes == workers.get("ready")

    jobs.wait(name, "two nodes", lambda status: uses(status, 2))
    assert jobs.status(name)["reason"] == "RunningSmaller"
    jobs.kubectl("delete", "pod", "b", "--wait=true")
    jobs.wait(name, "four nodes", lambda status: uses(status, 4))
    assert (bound(jobs, name), jobs.status(name)["restarts"]["total"]) == (4, 0)
