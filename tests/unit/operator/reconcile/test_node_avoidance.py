"""Nodes that fail the preflight check are avoided for a while, and never stop the job."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.simulated_cluster import SimulatedCluster

from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile import CreatePod, ReasonMessage
from finetune_trainer.protocol.outcome import Reason

PROBLEM = "preflight check of node 1: memory copies of 3 GB/s are below 0.5 of the median of the others, 11 GB/s"


def start(**preflight: Any) -> SimulatedCluster:
    cluster = SimulatedCluster(preflight=preflight)
    cluster.reconcile_until_stable()
    for index in (0, 1):
        cluster.make_ready(index)
    return cluster


def fail_check(cluster: SimulatedCluster, index: int = 1) -> list[CreatePod]:
    """Fail the check of a pod; returns the requests for its replacement."""
    cluster.fail(index, Reason.PREFLIGHT_FAILED, message=PROBLEM, node=index)
    created = []
    for _ in range(10):
        created += [action for action in cluster.reconcile().actions if isinstance(action, CreatePod)]
        cluster.pods = {name: pod for name, pod in cluster.pods.items() if not pod.is_being_deleted}
        if created:
            return created
        cluster.advance(60)
    return created


def block(cluster: SimulatedCluster, index: int = 1) -> None:
    """Let the scheduler find no node for a pod."""
    waiting = ReasonMessage("Unschedulable", "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector")
    cluster.update_pod(index, waiting=waiting)
    cluster.reconcile()


def events(cluster: SimulatedCluster, reason: str) -> list[str]:
    return [event.message for event in cluster.events if event.reason == reason]


def test_replacement_avoids_the_node() -> None:
    cluster = start()
    [created] = fail_check(cluster)
    assert (created.index, created.avoided_nodes, created.last_resort_nodes) == (1, ("node-1",), ())
    assert cluster.status.restarts.failures == 0, "no retry is spent"
    assert cluster.status.restarts.disruptions == 1
    assert cluster.condition(ConditionType.RESTARTING) == ("True", "PreflightFailed")
    [avoided] = cluster.status.avoided_nodes
    assert (avoided.name, avoided.message) == ("node-1", PROBLEM)
    [message] = events(cluster, "NodeAvoided")
    assert message == f"Node node-1 is avoided until 2026-01-01T13:00:00Z: {PROBLEM}."


def test_forgets_the_node_after_a_time() -> None:
    cluster = start(avoidNodesSeconds=600)
    fail_check(cluster)
    cluster.make_ready(1)
    assert len(cluster.reconcile_until_stable().status.avoided_nodes) == 1
    remaining = cluster.plan().requeue_after
    assert remaining is not None
    assert remaining <= 600
    cluster.advance(600).reconcile_until_stable()
    assert cluster.status.avoided_nodes == []


def test_zero_seconds_avoid_nothing() -> None:
    cluster = start(avoidNodesSeconds=0)
    [created] = fail_check(cluster)
    assert created.avoided_nodes == ()
    assert events(cluster, "NodeAvoided") == []


def test_other_failures_avoid_nothing() -> None:
    cluster = start()
    cluster.fail(1, Reason.CRASHED, message="no")
    cluster.reconcile_until_stable()
    assert cluster.status.avoided_nodes == []


def test_avoided_nodes_become_a_last_resort_where_no_other_has_room() -> None:
    cluster = start()
    fail_check(cluster)
    blocked = cluster.current_pod(1)
    block(cluster)
    cluster.advance(60).reconcile()
    assert cluster.current_pod(1).uid == blocked.uid, "an autoscaler may add a node"
    cluster.advance(61).reconcile_until_stable()
    assert cluster.current_pod(1).uid != blocked.uid
    [avoided] = cluster.status.avoided_nodes
    assert avoided.is_last_resort
    [message] = events(cluster, "AvoidedNodesNeeded")
    assert message.startswith(f"Pod {blocked.name} cannot be scheduled without node-1, which failed the preflight check")
    assert cluster.status.restarts.disruptions == 1, "the operator's own deletion does not count"


def test_a_last_resort_that_fails_again_stays_one() -> None:
    cluster = start()
    fail_check(cluster)
    block(cluster)
    cluster.advance(121).reconcile_until_stable()
    cluster.make_ready(1)
    [created] = fail_check(cluster)
    assert (created.avoided_nodes, created.last_resort_nodes) == ((), ("node-1",))


def test_pods_that_wait_for_another_reason_are_left_alone() -> None:
    cluster = start()
    waiting = ReasonMessage("Unschedulable", "0/2 nodes are available: 2 Insufficient nvidia.com/gpu")
    uid = cluster.current_pod(1).uid
    cluster.update_pod(1, ready=False, phase="Pending", node="", waiting=waiting)
    cluster.advance(600).reconcile()
    assert cluster.current_pod(1).uid == uid


@pytest.mark.parametrize("limit", [0, 3])
def test_a_cluster_of_failing_nodes_ends_the_job(limit: int) -> None:
    cluster = SimulatedCluster(preflight={}, maxDisruptionsPerHour=limit, backoffLimit=1).run_all_pods()
    for _ in range(limit + 5):
        if cluster.status.phase == "Failed":
            break
        fail_check(cluster)
        if cluster.status.phase != "Failed":
            cluster.make_ready(1)
    assert cluster.condition(ConditionType.FAILED) == ("True", "BackoffLimitExceeded")
    assert PROBLEM in cluster.message(ConditionType.FAILED)
