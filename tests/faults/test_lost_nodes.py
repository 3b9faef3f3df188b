"""Lost nodes: one is cut off from the network, its kubelet is dead, or the leader of the operator runs on it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests.support.cluster_jobs import Jobs
from tests.support.cluster_run import ClusterRun
from tests.support.devcluster import faults
from tests.support.lost_nodes import leader, leader_node, leader_on_other_node, node_is_ready, spread_operator
from tests.support.operator_faults import operator_pods
from tests.support.reliability import Measure
from tests.support.waiting import wait_until

TAKEOVER_SECONDS = 15
NODE_LOST_SECONDS = 30
# Kubernetes reports a node as not ready 50 seconds after the last sign of life of its kubelet, and looks every 5 seconds.
DETECTION_SECONDS = 60


@pytest.mark.timeout(900)
def test_node_is_cut_off(run: ClusterRun, measure: Measure) -> None:
    """The lost node is named as soon as Kubernetes knows of it, and its pod is replaced on the other node."""
    run.spread()
    cluster, node, restarts = run.jobs.cluster, run.node(1), run.restarts()
    with leader_on_other_node(cluster, node), measure.fault(4, "the network of a node is cut", run), faults.network_down(node):
        cut = time.monotonic()
        wait_until(lambda: not node_is_ready(cluster, node), "Kubernetes reports the node", seconds=DETECTION_SECONDS + 20)
        known = time.monotonic()
        run.wait("NodeLost", lambda: run.condition("PodsReady")[1] == "NodeLost", seconds=10)
        named = time.monotonic()
        assert f"Node {node} of pod" in run.condition("PodsReady")[2]
        assert run.condition("Running")[0] == "False" or run.condition("Running")[1] != "NodeLost"
        run.wait("a replacement", lambda: run.is_scheduled(1) and run.node(1) != node, seconds=NODE_LOST_SECONDS + 30)
        replaced = time.monotonic()
        run.wait_until_ready(seconds=120)
        running = time.monotonic()
        print(
            f"node cut: known to Kubernetes after {known - cut:.0f} s, named {named - known:.1f} s later, "
            f"replaced after {replaced - known:.0f} s, trains again {running - known:.0f} s after it was known"
        )
        assert replaced - known < NODE_LOST_SECONDS + 10
    assert run.restarts() == {**restarts, "disruptions": restarts["disruptions"] + 1}
    wait_until(lambda: node_is_ready(cluster, node), "the node is back", seconds=60)


@pytest.mark.timeout(600)
def test_kubelet_is_dead(run: ClusterRun, measure: Measure) -> None:
    """A run whose kubelet is dead is not touched, because its pods still answer; the silent kubelet is named."""
    run.spread()
    cluster, node, restarts, uids = run.jobs.cluster, run.node(1), run.restarts(), run.uids()
    with leader_on_other_node(cluster, node), faults.component_stopped(node, "kubelet"):
        wait_until(lambda: not node_is_ready(cluster, node), "Kubernetes reports the node", seconds=DETECTION_SECONDS + 20)
        run.wait("KubeletSilent", lambda: run.condition("PodsReady")[1] == "KubeletSilent", seconds=20)
        assert f"The kubelet of node {node} is silent" in run.condition("PodsReady")[2]
        reported = run.status()["progress"]["step"]
        time.sleep(NODE_LOST_SECONDS + 15)
        assert run.uids() == uids, "no pod is replaced"
        assert run.status()["progress"]["step"] > reported, "training goes on"
        assert run.condition("Running")[0] == "True"
    run.wait("all pods ready", lambda: run.condition("PodsReady")[0] == "True", seconds=90)
    assert run.restarts() == restarts
    run.check_curve()
    measure.record(7, "the kubelet of a node is dead, its pods run", 0.0, 0, 0)


@pytest.mark.timeout(600)
def test_node_of_the_leader_is_cut_off(jobs: Jobs, run: ClusterRun, measure: Measure) -> None:
    """The standby takes over within 15 seconds, and replaces the pod of the same node like any other."""
    run.spread()
    cluster = run.jobs.cluster
    spread_operator(cluster)
    node, before = leader_node(cluster), leader(cluster)["metadata"]["name"]
    with faults.network_down(node):
        seconds = wait_until(
            lambda: leader(cluster).get("metadata", {}).get("name") not in (None, before),
            "the standby leads",
            seconds=TAKEOVER_SECONDS,
        )
        print(f"node of the leader cut: the standby leads after {seconds:.1f} s")
        measure.record(16, "the node of the operator's leader is cut off", seconds, 0)
        run.wait("NodeLost", lambda: run.condition("PodsReady")[1] == "NodeLost", seconds=DETECTION_SECONDS + 20)
        run.wait("a replacement", lambda: all(run.is_scheduled(i) and run.node(i) != node for i in (0, 1)), seconds=90)
        run.wait_until_ready(seconds=120)
    run.check_curve()
    wait_until(lambda: node_is_ready(cluster, node), "the node is back", seconds=60)
    wait_until(lambda: len([pod for pod in operator_pods(cluster) if is_ready(pod)]) == 2, "two replicas", seconds=120)


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
