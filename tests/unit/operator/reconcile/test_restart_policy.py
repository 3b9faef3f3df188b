"""Failures and disruptions: how they are classified and counted, and how their pods are replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from tests.support.simulated_cluster import OperatorKilled, SimulatedCluster

from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile import DeletePod, ReasonMessage, TerminatedState
from finetune_trainer.protocol.outcome import Reason, SavedCheckpoint

Incident = Callable[[SimulatedCluster], object]


class Case(NamedTuple):
    """An incident on pod 1 of two, and what the status reports about it."""

    name: str
    incident: Incident
    reason: str
    is_disruption: bool = False
    message: str = ""


SAVED = SavedCheckpoint(step=20, time="2026-01-01T12:00:00Z", uri="s3://out/j/manifests/step-00000020.json")
OUT_OF_MEMORY = TerminatedState(137, "OOMKilled")
EVICTED = ReasonMessage("Evicted", "low on memory")
DISK_LIMIT = ReasonMessage("Evicted", "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ")

RETRIED = [
    Case("crash", lambda cluster: cluster.fail(1), "Crashed"),
    Case("hang", lambda cluster: cluster.fail(1, Reason.HANG), "Hang"),
    Case("storage", lambda cluster: cluster.fail(1, Reason.STORAGE_UNAVAILABLE), "StorageUnavailable"),
    Case("rendezvous", lambda cluster: cluster.fail(1, Reason.RENDEZVOUS_FAILED), "RendezvousFailed"),
    Case("preempted", lambda cluster: cluster.fail(1, Reason.PREEMPTED), "Preempted", True),
    Case("preempted without a checkpoint", lambda cluster: cluster.fail(1, Reason.PREEMPTED_UNSAVED), "PreemptedUnsaved", True),
    Case(
        "killed",
        lambda cluster: cluster.update_pod(1, phase="Failed", terminated=TerminatedState(137, "Error")),
        "Crashed",
    ),
    Case(
        "crash beside a sidecar",
        lambda cluster: cluster.update_pod(1, ready=False, terminated=TerminatedState(1, "Error"), has_unfinished_sidecar=True),
        "Crashed",
    ),
    Case(
        "node rebooted",
        lambda cluster: cluster.update_pod(1, phase="Failed", terminated=TerminatedState(255, "Unknown")),
        "Disrupted",
        True,
    ),
    Case(
        "evicted for its own disk limit",
        lambda cluster: cluster.update_pod(1, phase="Failed", disruption=DISK_LIMIT),
        "DiskLimitExceeded",
    ),
    Case("drained", lambda cluster: cluster.evict(1), "Disrupted", True),
    Case("evicted", lambda cluster: cluster.update_pod(1, phase="Failed", disruption=EVICTED), "Disrupted", True),
    Case("never started", lambda cluster: cluster.update_pod(1, phase="Failed"), "Disrupted", True),
    Case("deleted", lambda cluster: cluster.delete(1), "PodDeleted", True),
    Case(
        "deleted, then killed",
        lambda cluster: cluster.delete(1).update_pod(1, phase="Failed", terminated=TerminatedState(137)),
        "PodDeleted",
        True,
    ),
]


@pytest.mark.parametrize("case", RETRIED, ids=lambda case: case.name)
def test_replaces_only_the_failed_pod(case: Case) -> None:
    cluster = SimulatedCluster().run_all_pods()
    kept = cluster.pods["j-0"].uid
    case.incident(cluster)
    cluster.reconcile()
    assert cluster.status.phase == "Restarting"
    assert cluster.condition(ConditionType.RESTARTING) == ("True", case.reason)
    assert cluster.status.failure is not None
    failure = cluster.status.failure
    assert (failure.reason, failure.pod, failure.node) == (case.reason, "j-1", "node-1")
    cluster.reconcile_until_stable()
    restarts = cluster.status.restarts
    assert (restarts.failures, restarts.disruptions) == ((0, 1) if case.is_disruption else (1, 0))
    assert (restarts.total, restarts.by_reason) == (1, {case.reason: 1})
    assert cluster.created == ["j-0", "j-1", "j-1"]
    assert cluster.pods["j-0"].uid == kept, "the other pod is kept"
    cluster.make_ready(1).reconcile_until_stable()
    assert cluster.status.phase == "Running"
    assert cluster.condition(ConditionType.RESTARTING) == ("False", "Recovered")
    assert cluster.status.counted_terminated_pods == []


PERMANENT = [
    Case(
        "invalid data",
        lambda cluster: cluster.fail(1, Reason.INVALID_DATA, message="train.jsonl line 7: no text"),
        "InvalidData",
        message="line 7",
    ),
    Case(
        "invalid configuration",
        lambda cluster: cluster.fail(1, Reason.INVALID_CONFIGURATION, message="model.config: no"),
        "InvalidConfiguration",
        message="no",
    ),
    Case(
        "non-finite loss",
        lambda cluster: cluster.fail(1, Reason.NON_FINITE_LOSS, message="loss is NaN"),
        "NonFiniteLoss",
        message="NaN",
    ),
    Case(
        "out of GPU memory",
        lambda cluster: cluster.fail(1, Reason.OUT_OF_MEMORY, message="CUDA out of memory"),
        "OutOfMemory",
        message="CUDA",
    ),
    Case(
        "internal error",
        lambda cluster: cluster.fail(1, Reason.INTERNAL_ERROR, message="a bug"),
        "InternalError",
        message="a bug",
    ),
    Case(
        "container memory limit",
        lambda cluster: cluster.update_pod(1, phase="Failed", terminated=OUT_OF_MEMORY),
        "OutOfMemory",
        message="workers.resources.limits.memory",
    ),
    Case(
        "exit code without a message",
        lambda cluster: cluster.update_pod(1, phase="Failed", terminated=TerminatedState(3, "Error", "")),
        "InvalidData",
        message="exit code 3",
    ),
]


@pytest.mark.parametrize("case", PERMANENT, ids=lambda case: case.name)
def test_permanent_failure_fails_job_at_once(case: Case) -> None:
    cluster = SimulatedCluster().run_all_pods()
    case.incident(cluster)
    plan = cluster.reconcile()
    assert cluster.status.phase == "Failed"
    assert cluster.condition(ConditionType.FAILED) == ("True", case.reason)
    assert case.message in cluster.message(ConditionType.FAILED)
    assert "j-1" in cluster.message(ConditionType.FAILED)
    assert cluster.status.completion_time is not None
    assert plan.actions == (DeletePod("j-0", "pod-uid-1"),), "the failed pod is kept for its log"
    assert [event.reason for event in plan.events] == [case.reason]
    cluster.reconcile_until_stable()
    assert list(cluster.pods) == ["j-1"]
    assert cluster.created == ["j-0", "j-1"]


def test_fails_when_backoff_limit_is_exceeded() -> None:
    cluster = SimulatedCluster(backoffLimit=1).run_all_pods()
    cluster.fail(1, message="first").reconcile_until_stable()
    cluster.make_ready(1).reconcile_until_stable()
    cluster.advance(1).fail(1, message="second").reconcile_until_stable()
    assert cluster.status.phase == "Failed"
    assert cluster.condition(ConditionType.FAILED) == ("True", "BackoffLimitExceeded")
    assert (
        "runPolicy.backoffLimit: 2 failures exceed the limit of 1. The last one was Crashed on pod j-1-r: second."
        in cluster.message(ConditionType.FAILED)
    )
    assert cluster.status.failure is not None
    assert cluster.status.failure.reason == "Crashed"


def test_disruptions_do_not_count_towards_backoff_limit() -> None:
    cluster = SimulatedCluster(backoffLimit=0).run_all_pods()
    for number in range(1, 6):
        cluster.evict(0).reconcile_until_stable()
        cluster.advance(1000).reconcile_until_stable()
        cluster.make_ready(0).reconcile_until_stable()
        assert (cluster.status.phase, cluster.status.restarts.disruptions) == ("Running", number)


@pytest.mark.parametrize("together", [True, False], ids=["in one reconcile", "one after the other"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_failures_of_peers_are_not_counted(order: tuple[int, ...], together: bool) -> None:
    cluster = SimulatedCluster(nodes=3, backoffLimit=1).run_all_pods()
    cluster.advance(60)
    for index in order:
        cluster.fail(index, Reason.STORAGE_UNAVAILABLE, node=2, rank=2, message="no bucket")
        if not together:
            cluster.reconcile()
    cluster.reconcile_until_stable()
    cluster.advance(1).reconcile_until_stable()
    assert cluster.status.restarts.failures == 1
    assert cluster.status.failure is not None
    assert (cluster.status.failure.pod, cluster.status.failure.rank) == ("j-2", 2)
    assert sorted(cluster.created[3:]) == ["j-0", "j-1", "j-2"]


def test_repeated_failure_of_one_node_is_counted_again() -> None:
    cluster = SimulatedCluster(nodes=2).run_all_pods()
    for expected in (1, 2, 3):
        cluster.advance(60).fail(1, Reason.HANG, node=1).reconcile_until_stable()
        cluster.advance(60).reconcile_until_stable()
        cluster.make_ready(1).reconcile_until_stable()
        assert cluster.status.restarts.failures == expected


def test_backoff_doubles_and_resets_after_stable_training() -> None:
    cluster = SimulatedCluster(nodes=1, backoffLimit=100).run_all_pods()
    delays = []
    for _ in range(8):
        cluster.fail(0)
        plan = cluster.reconcile_until_stable()
        delays.append(round(plan.requeue_after or 0))
        cluster.advance(delays[-1]).reconcile_until_stable()
        cluster.make_ready(0).reconcile_until_stable()
    means = [0, 10, 20, 40, 80, 160, 300, 300]
    assert all(0.5 * mean <= delay <= 1.5 * mean for delay, mean in zip(delays, means, strict=True)), delays
    assert delays[-2] != delays[-1], "the pauses of many jobs spread"
    cluster.advance(1000).fail(0)
    assert cluster.reconcile_until_stable().requeue_after is None
    assert cluster.status.restarts.consecutive == 1


def test_ready_condition_reports_backoff() -> None:
    cluster = SimulatedCluster(nodes=1).run_all_pods()
    cluster.fail(0).reconcile_until_stable()
    cluster.make_ready(0).reconcile_until_stable()
    cluster.fail(0).reconcile_until_stable()
    assert list(cluster.pods) == ["j-0-r"], "the failed pod is kept for its log"
    assert cluster.condition(ConditionType.PODS_READY) == ("False", "BackingOff")
    seconds = cluster.status.restarts.backoff_seconds
    assert 5 <= seconds <= 15
    assert f"The pods restart at 2026-01-01T12:00:{seconds:02}Z" in cluster.message(ConditionType.PODS_READY)


def test_records_checkpoint_of_a_pod_that_was_counted_before_it_ended() -> None:
    """A drained pod is counted when its deletion begins, and reports its last checkpoint when it has terminated."""
    cluster = SimulatedCluster().run_all_pods()
    cluster.delete(0).reconcile()
    assert (cluster.status.restarts.total, cluster.status.checkpoint) == (1, None)
    cluster.fail(0, Reason.PREEMPTED, checkpoint=SAVED).reconcile()
    assert (cluster.status.restarts.total, cluster.status.checkpoint) == (1, SAVED)


def test_vanished_pod_is_counted_once() -> None:
    cluster = SimulatedCluster().run_all_pods()
    del cluster.pods["j-1"]
    cluster.reconcile_until_stable()
    assert (cluster.status.restarts.disruptions, cluster.status.restarts.by_reason) == (1, {"PodDeleted": 1})
    assert cluster.created == ["j-0", "j-1", "j-1"]
    assert cluster.status.phase == "Restarting"


def test_force_deletes_pod_on_lost_node() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.delete(1)
    plan = cluster.reconcile()
    assert plan.requeue_after == 150
    cluster.advance(150)
    plan = cluster.reconcile()
    assert plan.actions == (DeletePod("j-1", "pod-uid-2", force=True),)
    assert [event.reason for event in plan.events] == ["PodForceDeleted"]
    assert cluster.status.restarts.disruptions == 1


INCIDENTS: dict[str, Incident] = {
    "crash": lambda cluster: cluster.fail(1),
    "both crash": lambda cluster: cluster.fail(0).fail(1),
    "drain": lambda cluster: cluster.evict(0),
    "deletion": lambda cluster: cluster.delete(1),
    "vanished": lambda cluster: cluster.pods.pop("j-1"),
    "invalid data": lambda cluster: cluster.fail(1, Reason.INVALID_DATA),
    "complete": lambda cluster: cluster.succeed(0, model="s3://out/j/model"),
    "suspend": lambda cluster: cluster.set_run_policy(suspend=True),
    "nothing": lambda cluster: cluster,
}


@pytest.mark.parametrize("name", INCIDENTS)
def test_restarted_operator_reaches_same_state_after_any_write(name: str) -> None:
    def run(writes: float) -> SimulatedCluster:
        cluster = SimulatedCluster().run_all_pods()
        INCIDENTS[name](cluster)
        cluster.writes_until_killed = writes
        try:
            cluster.reconcile_until_stable()
        except OperatorKilled:
            cluster.writes_until_killed = float("inf")
            cluster.reconcile_until_stable()
        return cluster

    expected = run(float("inf"))
    for writes in range(12):
        cluster = run(writes)
        assert cluster.status == expected.status
        assert cluster.created == expected.created
        assert sorted(cluster.pods) == sorted(expected.pods)
