"""Lost nodes: named at once, their pods replaced later, and no run killed that still responds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import pytest
from tests.support.simulated_cluster import NOON, SimulatedCluster

from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile import DeletePod, ObservedNodes
from finetune_trainer.protocol.outcome import Progress, RunStatus

READY, RUNNING, RESTARTING = ConditionType.PODS_READY, ConditionType.RUNNING, ConditionType.RESTARTING
POD_1 = "pod-uid-2"


def nodes(*, ready: tuple[str, ...] = ("node-0", "node-2"), not_ready: tuple[str, ...] = ("node-1",)) -> ObservedNodes:
    return ObservedNodes(dict.fromkeys(not_ready, NOON), frozenset(ready), has_ready_worker=bool(ready))


def lose_node_1(*, jobs_nodes: int = 2, silent: bool = True, observed: Any = None, **run_policy: Any) -> SimulatedCluster:
    """A running job whose last pod is on a node that Kubernetes has marked as not ready just now."""
    cluster = SimulatedCluster(jobs_nodes, **run_policy).run_all_pods()
    index = jobs_nodes - 1
    cluster.update_pod(index, ready=False, running=True, node="node-1", address="10.0.0.1", node_lost_since=cluster.now)
    cluster.observed = {"nodes": nodes()} if observed is None else dict(observed)
    if silent:
        cluster.observed["silent_pods"] = frozenset({f"pod-uid-{jobs_nodes}"})
    return cluster


def test_names_node_and_pod_at_once() -> None:
    cluster = lose_node_1()
    plan = cluster.reconcile()
    assert plan.actions == ()
    assert cluster.condition(READY) == ("False", "NodeLost")
    assert cluster.message(READY) == (
        "1/2 pods are ready. Node node-1 of pod j-1 is not ready since 2026-01-01T12:00:00Z: "
        "the pod is replaced at 2026-01-01T12:00:30Z unless the node returns."
    )
    assert cluster.condition(RUNNING) == ("False", "NodeLost")
    assert [(event.type, event.reason) for event in plan.events] == [("Warning", "NodeLost")]
    assert plan.is_urgent
    again = cluster.reconcile()
    assert (again.actions, again.events, again.status) == ((), (), plan.status)


def test_progress_of_an_earlier_time_does_not_hide_the_lost_node() -> None:
    cluster = lose_node_1()
    cluster.observed["run"] = RunStatus(activity="Training", progress=Progress(step=5, total_steps=10))
    cluster.reconcile()
    assert cluster.condition(RUNNING) == ("False", "NodeLost")
    transition = cluster.status.conditions
    cluster.advance(5).reconcile()
    assert cluster.status.conditions == transition


def test_replaces_pod_after_the_limit_without_spending_the_budget() -> None:
    cluster = lose_node_1(backoffLimit=0)
    plan = cluster.reconcile()
    assert plan.requeue_after == 10
    plan = cluster.advance(29).reconcile()
    assert plan.actions == ()
    assert plan.requeue_after == 1
    plan = cluster.advance(1).reconcile()
    assert plan.actions == (DeletePod("j-1", POD_1, force=True),)
    assert cluster.status.phase == "Restarting"
    assert (cluster.status.restarts.failures, cluster.status.restarts.by_reason) == (0, {"NodeLost": 1})
    assert cluster.status.failure is not None
    assert (cluster.status.failure.node, cluster.status.failure.pod) == ("node-1", "j-1")
    assert cluster.message(RESTARTING) == (
        "Pod j-1 is replaced: node node-1 is not ready since 2026-01-01T12:00:00Z, and the pod does not respond"
    )
    cluster.observed = {}
    cluster.reconcile_until_stable()
    assert cluster.created == ["j-0", "j-1", "j-1"]
    cluster.make_ready(1).reconcile_until_stable()
    assert cluster.status.phase == "Running"
    assert cluster.status.restarts.total == 1


def test_repeats_the_forced_deletion_if_it_failed() -> None:
    """The operator may die, or the API server fail, between the write of the status and the deletion."""
    cluster = lose_node_1().advance(30)
    cluster.status = cluster.plan().status
    plan = cluster.reconcile()
    assert plan.actions == (DeletePod("j-1", POD_1),)  # an ordinary deletion, which the lost node never confirms
    plan = cluster.reconcile()
    assert plan.actions == (DeletePod("j-1", POD_1, force=True),)
    assert cluster.status.restarts.total == 1


def test_nothing_happens_if_the_node_returns_in_time() -> None:
    cluster = lose_node_1()
    cluster.reconcile()
    cluster.observed = {}
    cluster.advance(20).update_pod(1, ready=True, node_lost_since=None).reconcile_until_stable()
    assert cluster.condition(READY) == ("True", "PodsReady")
    assert cluster.condition(RUNNING) == ("True", "Starting")
    assert cluster.status.restarts.total == 0


@dataclass
class Case:
    """What is known about a pod, and whether it is replaced `after` seconds, and the reason that is shown."""

    name: str
    contact: Literal["silent", "responding", "unknown"]
    nodes: ObservedNodes | None
    after: float
    is_replaced: bool
    reason: str = "NodeLost"


CASES = [
    Case("the limit has not passed", "silent", nodes(), 29.9, False),
    Case("the limit has passed", "silent", nodes(), 30, True),
    Case("the operator may not list nodes", "silent", None, 30, True),
    Case("the kubelet is dead but the pod responds", "responding", nodes(), 3600, False, "KubeletSilent"),
    Case("the pod has not been asked for long enough", "unknown", nodes(), 30, False),
    Case("no node is ready: the control plane is cut off", "silent", nodes(ready=()), 3600, False),
    Case("the node is ready again, but its kubelet has not reported the pod", "silent", nodes(ready=("node-1",)), 30, False),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("job_nodes", [1, 2], ids=["single pod", "two pods"])
def test_when_a_pod_is_replaced(case: Case, job_nodes: int) -> None:
    cluster = lose_node_1(jobs_nodes=job_nodes, silent=False, observed={"nodes": case.nodes})
    uids = frozenset({f"pod-uid-{job_nodes}"})
    if case.contact != "unknown":
        cluster.observed[f"{case.contact}_pods"] = uids
    plan = cluster.advance(case.after).reconcile()
    forced = [action for action in plan.actions if isinstance(action, DeletePod) and action.force]
    assert bool(forced) == case.is_replaced
    assert cluster.status.restarts.disruptions == case.is_replaced
    if not case.is_replaced:
        assert cluster.condition(READY) == ("False", case.reason)
        assert plan.actions == ()
        assert plan.requeue_after is not None, "no watch reports that a pod stops to respond"
        assert plan.requeue_after <= 10


def test_run_whose_kubelet_is_dead_keeps_running() -> None:
    cluster = lose_node_1(silent=False)
    cluster.observed |= {"responding_pods": frozenset({POD_1}), "run": RunStatus(activity="Training")}
    cluster.advance(600).reconcile()
    assert cluster.status.phase == "Running"
    assert cluster.condition(RUNNING) == ("True", "Training")
    assert cluster.message(READY) == (
        "1/2 pods are ready. The kubelet of node node-1 is silent since 2026-01-01T12:00:00Z, but pod j-1 still responds and "
        "is left alone: check the kubelet."
    )


def test_message_without_a_ready_node() -> None:
    cluster = lose_node_1(observed={"nodes": nodes(ready=())})
    cluster.reconcile()
    assert cluster.message(READY).endswith(
        "and no other node is ready: the pod is replaced when one is, unless its node returns."
    )


@pytest.mark.parametrize(("seconds", "replaced_after"), [(None, 30), (0, 0), (5, 5), (300, 300)])
def test_limit_of_the_job_overrides_that_of_the_operator(seconds: int | None, replaced_after: float) -> None:
    cluster = lose_node_1(nodeLostSeconds=seconds)
    if replaced_after:
        assert cluster.advance(replaced_after - 1).reconcile().actions == ()
        cluster.advance(1)
    assert cluster.reconcile().actions == (DeletePod("j-1", POD_1, force=True),)


@pytest.mark.parametrize("phase", ["Pending", "Running"])
def test_pod_that_was_never_ready_is_found_by_its_node(phase: str) -> None:
    """Kubernetes marks only pods that were ready; a pod that pulls its image on a lost node looks as before."""
    cluster = SimulatedCluster().run_all_pods()
    cluster.update_pod(
        1, ready=False, node="node-1", phase=phase, running=phase == "Running", address="10.0.0.1" if phase == "Running" else ""
    )
    plan = cluster.reconcile()
    assert cluster.condition(READY) == ("False", "PodsNotReady")
    assert plan.requeue_after is not None, "the nodes are checked while a pod is not ready"
    assert plan.requeue_after <= 30
    cluster.observed = {"nodes": nodes(), "silent_pods": frozenset({POD_1}) if phase == "Running" else frozenset()}
    cluster.reconcile()
    assert cluster.condition(READY) == ("False", "NodeLost")
    plan = cluster.advance(30).reconcile()
    assert plan.actions == (DeletePod("j-1", POD_1, force=True),)


def test_terminating_pod_of_a_lost_node_does_not_wait_for_its_grace_period() -> None:
    cluster = lose_node_1()
    cluster.set_run_policy(suspend=True)
    plan = cluster.reconcile()
    assert {action.name for action in plan.actions if isinstance(action, DeletePod)} == {"j-0", "j-1"}
    plan = cluster.advance(30).reconcile()
    assert plan.actions == (DeletePod("j-1", POD_1, force=True),)
    [event] = [event for event in plan.events if event.reason == "PodForceDeleted"]
    assert event.message == "Pod j-1 cannot terminate, because node node-1 is lost; its deletion is forced."


def test_all_pods_on_one_lost_node_are_replaced() -> None:
    cluster = SimulatedCluster().run_all_pods()
    for index in (0, 1):
        cluster.update_pod(index, ready=False, running=True, node="node-1", address="10.0.0.1", node_lost_since=NOON)
    cluster.observed = {"nodes": nodes(), "silent_pods": frozenset({"pod-uid-1", "pod-uid-2"})}
    plan = cluster.advance(30).reconcile()
    assert set(plan.actions) == {DeletePod("j-0", "pod-uid-1", force=True), DeletePod("j-1", "pod-uid-2", force=True)}


def test_finished_pods_of_lost_nodes_are_left_alone() -> None:
    cluster = SimulatedCluster().run_all_pods().succeed(1)
    cluster.update_pod(1, node="node-1", node_lost_since=NOON)
    cluster.observed = {"nodes": nodes()}
    plan = cluster.advance(timedelta(hours=1).total_seconds()).reconcile()
    assert plan.actions == ()
    assert cluster.status.restarts.total == 0
