"""Faults of pods and nodes: deletion, drains, taints, nodes without network and stopped kubelets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.support.cluster_jobs import Jobs
from tests.support.cluster_run import ClusterRun
from tests.support.devcluster import faults
from tests.support.operator_faults import operator_pods
from tests.support.reliability import Measure


@pytest.mark.parametrize("index", [0, 1])
def test_deleted_pod(run: ClusterRun, measure: Measure, index: int) -> None:
    """A pod that disappears without a word is replaced, and its peer keeps its pod."""
    pods, restarts = run.uids(), run.restarts()
    with measure.fault(1, f"pod {index} is deleted by force", run):
        run.delete_pod(index, "--grace-period=0", "--force")
    assert run.uids()[1 - index] == pods[1 - index], "only the lost pod was replaced"
    assert run.uids()[index] != pods[index]
    assert run.restarts() == {**restarts, "disruptions": restarts["disruptions"] + 1}


def test_drained_node(run: ClusterRun, measure: Measure) -> None:
    """The pod moves to the other node after it stored a checkpoint, and no failure is counted."""
    run.spread()
    restarts, node = run.restarts(), run.node(1)
    with measure.fault(8, "kubectl drain", run, steps_lost=0):
        try:
            run.jobs.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s")
            run.wait("another node for the pod", lambda: run.is_scheduled(1) and run.node(1) != node)
        finally:
            run.jobs.kubectl("uncordon", node)
    assert run.restarts() == {**restarts, "disruptions": restarts["disruptions"] + 1}


def test_tainted_node(run: ClusterRun, measure: Measure) -> None:
    """As a drain, by a taint that evicts at once."""
    run.spread()
    restarts, node = run.restarts(), run.node(1)
    with measure.fault(8, "NoExecute taint", run, steps_lost=0), _tainted(run.jobs, node):
        run.wait("another node for the pod", lambda: run.is_scheduled(1) and run.node(1) != node)
    assert run.restarts() == {**restarts, "disruptions": restarts["disruptions"] + 1}


@contextmanager
def _tainted(jobs: Jobs, node: str) -> Iterator[None]:
    jobs.kubectl("taint", "node", node, "fault-test=here:NoExecute")
    try:
        yield
    finally:
        jobs.kubectl("taint", "node", node, "fault-test-")


@pytest.mark.timeout(1200)
def test_node_without_network(run: ClusterRun, measure: Measure) -> None:
    """The pod of a node that is cut off is replaced on another one; its processes, which still run, cannot do harm."""
    run.spread()
    index = _index_without_operator(run)
    restarts, node = run.restarts(), run.node(index)
    with measure.fault(4, "a node loses its network", run, seconds=600) as injection:
        with faults.network_down(node):
            run.wait_for_recovery(injection.time, 1, seconds=600)
            assert run.node(index) != node
        _wait_until_nodes_are_ready(run.jobs)
    assert run.restarts() == {**restarts, "disruptions": restarts["disruptions"] + 1}
    _wait_until_no_pod_terminates(run)


def test_stopped_kubelet(run: ClusterRun, measure: Measure) -> None:
    """A node that Kubernetes does not hear from goes on training, so its pod is left alone."""
    run.spread()
    index = _index_without_operator(run)
    pods, restarts, node = run.uids(), run.restarts(), run.node(index)
    with measure.fault(7, "a kubelet is stopped for 90 s", run, restarts=0):
        with faults.component_stopped(node):
            time.sleep(90)
            run.wait_for_steps(5)
        _wait_until_nodes_are_ready(run.jobs)
    assert run.uids() == pods
    assert run.restarts() == restarts
    _wait_until_no_pod_terminates(run)


def _index_without_operator(run: ClusterRun) -> int:
    """The index of a pod whose node has no operator, if there is one."""
    nodes = {pod["spec"]["nodeName"] for pod in operator_pods(run.jobs.cluster)}
    return next((index for index in (1, 0) if run.node(index) not in nodes), 1)


def _wait_until_nodes_are_ready(jobs: Jobs) -> None:
    jobs.kubectl("wait", "node", "--all", "--for=condition=Ready", "--timeout=120s")


def _wait_until_no_pod_terminates(run: ClusterRun, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while terminating := [name for name, pod in run.jobs.pods(run.name).items() if "deletionTimestamp" in pod["metadata"]]:
        assert time.monotonic() < deadline, f"pods are stuck: {terminating}"
        time.sleep(1)
