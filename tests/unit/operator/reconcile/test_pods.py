"""One pod for each node, and what the status says while they are not all there."""

from __future__ import annotations

import pytest
from tests.support.simulated_cluster import SimulatedCluster

from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile import CreateJobResources, CreatePod, MissingSecret, ReasonMessage


def test_a_new_job_gets_shared_objects_then_pods() -> None:
    world = SimulatedCluster(nodes=3)
    plan = world.one_pass()
    assert plan.actions == (CreateJobResources(), CreatePod(0), CreatePod(1), CreatePod(2))
    assert plan.urgent
    assert (world.status.phase, world.status.workers.summary) == ("Pending", "0/3")
    assert world.status.start_time == "2026-01-01T12:00:00Z"
    assert world.status.observed_generation == 1


def test_nothing_is_done_twice() -> None:
    world = SimulatedCluster().running()
    plan = world.look()
    assert plan.status == world.status
    assert plan.actions == ()
    assert plan.notes == ()
    assert not plan.urgent


def test_running_begins_with_the_last_pod() -> None:
    world = SimulatedCluster()
    world.settle()
    world.ready(0)
    plan = world.one_pass()
    assert not plan.urgent, "one pod of two is no news that cannot wait"
    assert (world.status.phase, world.status.workers.summary) == ("Pending", "1/2")
    world.ready(1)
    assert world.one_pass().urgent
    assert (world.status.phase, world.status.workers.summary) == ("Running", "2/2")
    assert world.condition(ConditionType.PODS_READY) == ("True", "PodsReady")
    assert world.condition(ConditionType.RUNNING) == ("True", "Starting")


@pytest.mark.parametrize(
    ("seen", "reason", "sentence"),
    [
        (
            {"missing_secrets": (MissingSecret("spec.checkpoint.credentials", "s3"),)},
            "SecretNotFound",
            "spec.checkpoint.credentials: there is no Secret 's3'",
        ),
        ({"unowned_pods": ("j-0",)}, "EarlierJobStopping", "Pod j-0 of an earlier job"),
    ],
)
def test_obstacles_keep_all_pods_from_being_made(seen: dict[str, object], reason: str, sentence: str) -> None:
    world = SimulatedCluster()
    world.seen = seen
    plan = world.one_pass()
    assert plan.actions == ()
    assert plan.requeue_after == 10
    assert world.status.phase == "Pending"
    assert world.status.start_time is None, "the deadline does not run while nothing can start"
    assert world.condition(ConditionType.PODS_READY) == ("False", reason)
    assert sentence in world.message(ConditionType.PODS_READY)
    world.seen = {}
    assert CreatePod(0) in world.one_pass().actions


@pytest.mark.parametrize(
    "trouble",
    [
        ReasonMessage("Unschedulable", "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."),
        ReasonMessage("ImagePullBackOff", 'Back-off pulling image "typo"'),
        ReasonMessage("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
    ],
)
def test_pods_that_do_not_start_say_why(trouble: ReasonMessage) -> None:
    world = SimulatedCluster()
    world.settle()
    world.change(1, trouble=trouble).one_pass()
    assert world.condition(ConditionType.PODS_READY) == ("False", trouble.reason)
    assert f"Pod j-1: {trouble.message}" in world.message(ConditionType.PODS_READY)


def test_what_the_api_server_refuses_is_said_and_tried_again() -> None:
    world = SimulatedCluster()
    world.seen = {"create_error": ReasonMessage("CreationRefused", "pods are forbidden: exceeded quota: gpus")}
    plan = world.one_pass()
    assert CreatePod(0) in plan.actions
    assert world.condition(ConditionType.PODS_READY) == ("False", "CreationRefused")
    assert "exceeded quota" in world.message(ConditionType.PODS_READY)


def test_a_pod_that_restarts_its_ranks_does_not_end_the_run() -> None:
    world = SimulatedCluster().running()
    world.change(1, ready=False).one_pass()
    assert world.status.phase == "Running"
    assert world.condition(ConditionType.PODS_READY) == ("False", "PodsNotReady")
    assert world.status.restarts.total == 0


def test_a_peer_that_is_done_comes_back_when_node_0_does() -> None:
    world = SimulatedCluster().running()
    world.succeed(1).fail(0)
    world.settle()
    assert world.created == ["j-0", "j-1", "j-0", "j-1"]
    assert world.status.restarts.failures == 1
