"""Failures and disruptions are counted once, cost what they should, and the pod comes back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.support.simulated_cluster import Killed, SimulatedCluster

from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile import DeletePod, ReasonMessage, TerminatedState
from finetune_trainer.protocol.outcome import Reason

RETRIED: list[tuple[str, Callable[[SimulatedCluster], SimulatedCluster], str, bool]] = [
    ("crash", lambda world: world.fail(1), "Crashed", False),
    ("hang", lambda world: world.fail(1, Reason.HANG), "Hang", False),
    ("storage", lambda world: world.fail(1, Reason.STORAGE_UNAVAILABLE), "StorageUnavailable", False),
    ("rendezvous", lambda world: world.fail(1, Reason.RENDEZVOUS_FAILED), "RendezvousFailed", False),
    ("preempted", lambda world: world.fail(1, Reason.PREEMPTED), "Preempted", True),
    ("preempted unsaved", lambda world: world.fail(1, Reason.PREEMPTED_UNSAVED), "PreemptedUnsaved", True),
    ("killed", lambda world: world.change(1, phase="Failed", ending=TerminatedState(137, "Error")), "Crashed", False),
    ("drained", lambda world: world.evict(1), "Disrupted", True),
    ("evicted", lambda w: w.change(1, phase="Failed", disruption=ReasonMessage("Evicted", "low on memory")), "Disrupted", True),
    ("never ran", lambda world: world.change(1, phase="Failed"), "Disrupted", True),
    ("deleted", lambda world: world.delete(1), "PodDeleted", True),
    ("deleted, then killed", lambda w: w.delete(1).change(1, phase="Failed", ending=TerminatedState(137)), "PodDeleted", True),
]


@pytest.mark.parametrize(("happens", "reason", "is_disruption"), [row[1:] for row in RETRIED], ids=[row[0] for row in RETRIED])
def test_the_pod_is_replaced_alone(
    happens: Callable[[SimulatedCluster], SimulatedCluster], reason: str, is_disruption: bool
) -> None:
    world = SimulatedCluster().running()
    kept = world.pods["j-0"].uid
    happens(world)
    world.one_pass()
    assert world.status.phase == "Restarting"
    assert world.condition(ConditionType.RESTARTING) == ("True", reason)
    assert world.status.failure is not None
    assert (world.status.failure.reason, world.status.failure.pod, world.status.failure.node) == (reason, "j-1", "node-1")
    world.settle()
    restarts = world.status.restarts
    assert (restarts.failures, restarts.disruptions) == ((0, 1) if is_disruption else (1, 0))
    assert (restarts.total, restarts.by_reason) == (1, {reason: 1})
    assert world.created == ["j-0", "j-1", "j-1"]
    assert world.pods["j-0"].uid == kept, "its peer only waits"
    world.ready(1).settle()
    assert world.status.phase == "Running"
    assert world.condition(ConditionType.RESTARTING) == ("False", "Recovered")
    assert world.status.counted_terminated_pods == []


FINAL = [
    (lambda world: world.fail(1, Reason.INVALID_DATA, message="train.jsonl line 7: no text"), "InvalidData", "line 7"),
    (lambda world: world.fail(1, Reason.INVALID_CONFIGURATION, message="model.config: no"), "InvalidConfiguration", "no"),
    (lambda world: world.fail(1, Reason.NON_FINITE_LOSS, message="loss is NaN"), "NonFiniteLoss", "NaN"),
    (lambda world: world.fail(1, Reason.OUT_OF_MEMORY, message="CUDA out of memory"), "OutOfMemory", "CUDA"),
    (lambda world: world.fail(1, Reason.INTERNAL_ERROR, message="a bug"), "InternalError", "a bug"),
    (
        lambda w: w.change(1, phase="Failed", ending=TerminatedState(137, "OOMKilled")),
        "OutOfMemory",
        "workers.resources.limits.memory",
    ),
    (lambda world: world.change(1, phase="Failed", ending=TerminatedState(3, "Error", "")), "InvalidData", "exit code 3"),
]


@pytest.mark.parametrize(("happens", "reason", "sentence"), FINAL)
def test_what_a_retry_cannot_cure_fails_at_once(
    happens: Callable[[SimulatedCluster], SimulatedCluster], reason: str, sentence: str
) -> None:
    world = SimulatedCluster().running()
    happens(world)
    plan = world.one_pass()
    assert world.status.phase == "Failed"
    assert world.condition(ConditionType.FAILED) == ("True", reason)
    assert sentence in world.message(ConditionType.FAILED)
    assert "j-1" in world.message(ConditionType.FAILED)
    assert world.status.completion_time is not None
    assert plan.actions == (DeletePod("j-0", "pod-uid-1"),), "the failed pod stays for its log"
    assert [note.reason for note in plan.notes] == [reason]
    world.settle()
    assert list(world.pods) == ["j-1"]
    assert world.created == ["j-0", "j-1"]


def test_too_many_failures_end_the_job() -> None:
    world = SimulatedCluster(backoffLimit=1).running()
    world.fail(1, message="first").settle()
    world.ready(1).settle()
    world.tick(1).fail(1, message="second").settle()
    assert world.status.phase == "Failed"
    assert world.condition(ConditionType.FAILED) == ("True", "BackoffLimitExceeded")
    assert "2 failures are more than runPolicy.backoffLimit, 1. The last was Crashed on pod j-1: second." in world.message(
        ConditionType.FAILED
    )
    assert world.status.failure is not None
    assert world.status.failure.reason == "Crashed"


def test_disruptions_spend_no_budget() -> None:
    world = SimulatedCluster(backoffLimit=0).running()
    for number in range(1, 6):
        world.evict(0).settle()
        world.tick(1000).settle()
        world.ready(0).settle()
        assert (world.status.phase, world.status.restarts.disruptions) == ("Running", number)


@pytest.mark.parametrize("together", [True, False], ids=["in one pass", "one after the other"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_peers_that_a_failure_takes_along_are_not_counted(order: tuple[int, ...], together: bool) -> None:
    world = SimulatedCluster(nodes=3, backoffLimit=1).running()
    world.tick(60)
    for index in order:
        world.fail(index, Reason.STORAGE_UNAVAILABLE, node=2, rank=2, message="no bucket")
        if not together:
            world.one_pass()
    world.settle()
    world.tick(1).settle()
    assert world.status.restarts.failures == 1
    assert world.status.failure is not None
    assert (world.status.failure.pod, world.status.failure.rank) == ("j-2", 2)
    assert sorted(world.created[3:]) == ["j-0", "j-1", "j-2"]


def test_the_same_node_failing_again_is_counted_again() -> None:
    world = SimulatedCluster(nodes=2).running()
    for expected in (1, 2, 3):
        world.tick(60).fail(1, Reason.HANG, node=1).settle()
        world.tick(60).settle()
        world.ready(1).settle()
        assert world.status.restarts.failures == expected


def test_pauses_double_and_end_after_quiet_minutes() -> None:
    world = SimulatedCluster(nodes=1, backoffLimit=100).running()
    pauses = []
    for _ in range(8):
        world.fail(0)
        plan = world.settle()
        pauses.append(round(plan.requeue_after or 0))
        world.tick(pauses[-1]).settle()
        world.ready(0).settle()
    assert pauses == [0, 10, 20, 40, 80, 160, 300, 300]
    world.tick(1000).fail(0)
    assert world.settle().requeue_after is None
    assert world.status.restarts.consecutive == 1


def test_the_status_says_that_it_waits() -> None:
    world = SimulatedCluster(nodes=1).running()
    world.fail(0).settle()
    world.ready(0).settle()
    world.fail(0).settle()
    assert world.pods == {}
    assert world.condition(ConditionType.PODS_READY) == ("False", "BackingOff")
    assert "The next try begins at 2026-01-01T12:00:10Z" in world.message(ConditionType.PODS_READY)


def test_a_pod_that_vanished_unseen_is_counted_once() -> None:
    world = SimulatedCluster().running()
    del world.pods["j-1"]
    world.settle()
    assert (world.status.restarts.disruptions, world.status.restarts.by_reason) == (1, {"PodDeleted": 1})
    assert world.created == ["j-0", "j-1", "j-1"]
    assert world.status.phase == "Restarting"


def test_a_pod_on_a_lost_node_is_removed_by_force() -> None:
    world = SimulatedCluster().running()
    world.delete(1)
    plan = world.one_pass()
    assert plan.requeue_after == 150
    world.tick(150)
    plan = world.one_pass()
    assert plan.actions == (DeletePod("j-1", "pod-uid-2", force=True),)
    assert [note.reason for note in plan.notes] == ["PodStuck"]
    assert world.status.restarts.disruptions == 1


STORIES: dict[str, Callable[[SimulatedCluster], object]] = {
    "crash": lambda world: world.fail(1),
    "both crash": lambda world: world.fail(0).fail(1),
    "drain": lambda world: world.evict(0),
    "deletion": lambda world: world.delete(1),
    "vanished": lambda world: world.pods.pop("j-1"),
    "invalid data": lambda world: world.fail(1, Reason.INVALID_DATA),
    "complete": lambda world: world.succeed(0, model="s3://out/j/model"),
    "suspend": lambda world: world.set_policy(suspend=True),
    "nothing": lambda world: world,
}


@pytest.mark.parametrize("story", STORIES)
def test_killed_at_any_write_the_next_operator_gets_to_the_same_end(story: str) -> None:
    def play(lives: float) -> SimulatedCluster:
        world = SimulatedCluster().running()
        STORIES[story](world)
        world.lives = lives
        try:
            world.settle()
        except Killed:
            world.lives = float("inf")
            world.settle()
        return world

    whole = play(float("inf"))
    for lives in range(12):
        cut = play(lives)
        assert cut.status == whole.status
        assert cut.created == whole.created
        assert sorted(cut.pods) == sorted(whole.pods)
