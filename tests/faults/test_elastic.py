"""An elastic run on two nodes loses one, goes on with the other, and takes the first one back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.cluster_run import CHECKPOINT_EVERY, ClusterRun, ClusterRuns, document, stored_curve
from tests.support.devcluster import faults
from tests.support.lost_nodes import leader_on_other_node, node_is_ready
from tests.support.reliability import Measure
from tests.support.waiting import wait_until

FAULT = 27
TOLERANCE = 1e-3  # of the loss


def elastic(name: str, storage: str, credentials: str) -> dict[str, Any]:
    """The run of the other tests, for a while longer, with a node for each pod."""
    term = {
        "labelSelector": {"matchLabels": {"finetune-operator.io/job": name}},
        "topologyKey": "kubernetes.io/hostname",
    }
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    workers = {"minNodes": 1, "template": {"affinity": affinity}}
    body = document(name, storage, checkpoint={"credentials": credentials}, workers=workers)
    body["spec"]["runPolicy"] |= {"elastic": {"shrinkAfterSeconds": 10, "growAfterSeconds": 5}}
    return body


@pytest.fixture
def run(runs: ClusterRuns, request: pytest.FixtureRequest) -> Iterator[ClusterRun]:
    """An elastic run that trains on both nodes."""
    name = request.node.originalname.removeprefix("test_").replace("_", "-")
    uri = f"{runs.storage}/{name}"
    runs.jobs.apply(elastic(name, uri, runs.credentials))
    run = ClusterRun(runs.jobs, name, runs.jobs.store(uri, runs.folder), runs.expected)
    run.wait_until_ready()
    yield run
    run.jobs.kubectl("delete", "ftj", run.name, "--wait=true")
    run.log.close()


def uses(run: ClusterRun, nodes: int) -> bool:
    """Whether the run trains on this many nodes."""
    status = run.status()
    return bool(status.get("phase") == "Running" and status["workers"]["replicas"] == nodes == status["workers"]["ready"])


def wait_for_nodes(run: ClusterRun, nodes: int, case: str, measure: Measure, steps_lost: int) -> None:
    """Wait until the run trains on this many nodes, and record what the change from now on costs."""
    began = time.time()
    run.wait(f"{nodes} nodes", lambda: uses(run, nodes), seconds=300)
    run.wait_for_steps(2, seconds=120)
    recovered = run.wait_for_recovery(began, 1, seconds=60)
    measure.record(FAULT, case, recovered.seconds, recovered.steps_lost)
    assert recovered.steps_lost <= steps_lost


def check_losses(run: ClusterRun) -> None:
    """The losses up to the newest checkpoint are those of the undisturbed run, apart from rounding."""
    run.wait_for_checkpoint(run.log.update().highest_step)
    curve = stored_curve(run.storage)
    expected = {step: loss for step, loss in run.expected.items() if step in curve}
    assert len(expected) > 10
    assert {step: curve[step] for step in expected} == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.timeout(1200)
def test_missing_node(run: ClusterRun, measure: Measure) -> None:
    """A node is drained, its pod finds no other one, and later the node is back."""
    cluster, node, before = run.jobs.cluster, run.node(1), run.restarts()
    assert node != run.node(0)
    cluster.kubectl("cordon", node)
    try:
        run.delete_pod(1)
        wait_for_nodes(run, 1, "a node is drained: two nodes to one", measure, 0)
        assert run.status()["reason"] == "RunningSmaller"
        assert run.status()["workers"]["summary"] == "1/2"
    finally:
        cluster.kubectl("uncordon", node)
    wait_for_nodes(run, 2, "the node is back: one node to two", measure, 0)
    check_losses(run)
    assert run.status()["elastic"]["resizes"] == 2
    assert run.restarts() == {**before, "disruptions": before["disruptions"] + 1}


@pytest.mark.timeout(1500)
def test_lost_node(run: ClusterRun, measure: Measure) -> None:
    """The network of a node is cut, and later restored."""
    cluster, node = run.jobs.cluster, run.node(1)
    assert node != run.node(0)
    with leader_on_other_node(cluster, node), faults.network_down(node):
        wait_for_nodes(run, 1, "the network of a node is cut: two nodes to one", measure, 2 * CHECKPOINT_EVERY)
    wait_until(lambda: node_is_ready(cluster, node), "the node is back", seconds=60)
    wait_for_nodes(run, 2, "the network is back: one node to two", measure, 0)
    check_losses(run)
    assert run.restarts()["failures"] == 0


@pytest.mark.timeout(900)
def test_scaled_run(run: ClusterRun, measure: Measure) -> None:
    """`kubectl scale` to one node and back."""
    run.jobs.kubectl("scale", "ftj", run.name, "--replicas=1")
    wait_for_nodes(run, 1, "kubectl scale from two nodes to one", measure, 0)
    run.jobs.kubectl("scale", "ftj", run.name, "--replicas=2")
    wait_for_nodes(run, 2, "kubectl scale from one node to two", measure, 0)
    check_losses(run)
    assert run.status()["restarts"]["total"] == 0
