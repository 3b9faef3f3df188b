"""Creation of pods, and the PodsReady condition while some are missing."""

from __future__ import annotations

import pytest
from tests.support.simulated_cluster import SimulatedCluster

from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile import CreateJobResources, CreatePod, MissingSecret, ReasonMessage


def test_creates_job_resources_then_pods() -> None:
    cluster = SimulatedCluster(nodes=3)
    plan = cluster.reconcile()
    assert plan.actions == (CreateJobResources(), CreatePod(0, 3), CreatePod(1, 3), CreatePod(2, 3))
    assert plan.is_urgent
    assert (cluster.status.phase, cluster.status.workers.summary) == ("Pending", "0/3")
    assert cluster.status.start_time == "2026-01-01T12:00:00Z"
    assert cluster.status.observed_generation == 1


def test_second_reconcile_changes_nothing() -> None:
    cluster = SimulatedCluster().run_all_pods()
    plan = cluster.plan()
    assert plan.status == cluster.status
    assert plan.actions == ()
    assert plan.events == ()
    assert not plan.is_urgent


def test_job_runs_when_last_pod_is_ready() -> None:
    cluster = SimulatedCluster()
    cluster.reconcile_until_stable()
    cluster.make_ready(0)
    plan = cluster.reconcile()
    assert not plan.is_urgent, "a change of the ready count alone may be written later"
    assert (cluster.status.phase, cluster.status.workers.summary) == ("Pending", "1/2")
    cluster.make_ready(1)
    assert cluster.reconcile().is_urgent
    assert (cluster.status.phase, cluster.status.workers.summary) == ("Running", "2/2")
    assert cluster.condition(ConditionType.PODS_READY) == ("True", "PodsReady")
    assert cluster.condition(ConditionType.RUNNING) == ("True", "Starting")


@pytest.mark.parametrize(
    ("observed", "reason", "message"),
    [
        pytest.param(
            {"missing_secrets": (MissingSecret("spec.checkpoint.credentials", "s3"),)},
            "SecretNotFound",
            "spec.checkpoint.credentials: the Secret 's3' does not exist",
            id="missing Secret",
        ),
        pytest.param(
            {"unowned_pods": ("j-0",)}, "PreviousPodsTerminating", "Pod j-0 of a previous job", id="pod of a previous job"
        ),
    ],
)
def test_obstacle_prevents_creation_of_all_pods(observed: dict[str, object], reason: str, message: str) -> None:
    cluster = SimulatedCluster()
    cluster.observed = observed
    plan = cluster.reconcile()
    assert plan.actions == ()
    assert plan.requeue_after == 10
    assert cluster.status.phase == "Pending"
    assert cluster.status.start_time is None, "the deadline does not start before pods can be created"
    assert cluster.condition(ConditionType.PODS_READY) == ("False", reason)
    assert message in cluster.message(ConditionType.PODS_READY)
    cluster.observed = {}
    assert CreatePod(0, 2) in cluster.reconcile().actions


@pytest.mark.parametrize(
    ("reason", "message", "shown_reason", "sentence"),
    [
        pytest.param(
            "Unschedulable",
            "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
            "Unschedulable",
            "Pod j-1 cannot be scheduled: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
            id="no GPU",
        ),
        pytest.param(
            "Unschedulable",
            'persistentvolumeclaim "data" not found',
            "VolumeNotFound",
            'Pod j-1 cannot be scheduled: persistentvolumeclaim "data" not found.',
            id="missing claim",
        ),
        pytest.param(
            "Unschedulable",
            "pod has unbound immediate PersistentVolumeClaims",
            "Unschedulable",
            "Pod j-1 cannot be scheduled: pod has unbound immediate PersistentVolumeClaims.",
            id="unbound claim",
        ),
        pytest.param(
            "SchedulingGated",
            "Scheduling is blocked due to non-empty scheduling gates",
            "SchedulingGated",
            "Pod j-1 waits for its scheduling gates: Scheduling is blocked due to non-empty scheduling gates.",
            id="scheduling gate",
        ),
        pytest.param(
            "ImagePullBackOff",
            'Back-off pulling image "typo"',
            "ImagePullBackOff",
            'Pod j-1 cannot pull its image: Back-off pulling image "typo".',
            id="image",
        ),
        pytest.param(
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root",
            "CreateContainerConfigError",
            "Pod j-1: container has runAsNonRoot and image will run as root.",
            id="container configuration",
        ),
    ],
)
def test_ready_condition_says_why_a_pod_waits(reason: str, message: str, shown_reason: str, sentence: str) -> None:
    cluster = SimulatedCluster()
    cluster.reconcile_until_stable()
    cluster.update_pod(1, waiting=ReasonMessage(reason, message)).reconcile()
    assert cluster.condition(ConditionType.PODS_READY) == ("False", shown_reason)
    assert cluster.message(ConditionType.PODS_READY) == f"0 of 2 pods are ready. {sentence}"
    assert cluster.status.reason == shown_reason


def test_reports_and_retries_create_error() -> None:
    cluster = SimulatedCluster()
    cluster.observed = {"create_error": ReasonMessage("CreateRejected", "pods are forbidden: exceeded quota: gpus")}
    plan = cluster.reconcile()
    assert CreatePod(0, 2) in plan.actions
    assert cluster.condition(ConditionType.PODS_READY) == ("False", "CreateRejected")
    assert "exceeded quota" in cluster.message(ConditionType.PODS_READY)


def test_unready_pod_does_not_restart_job() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.update_pod(1, ready=False).reconcile()
    assert cluster.status.phase == "Running"
    assert cluster.condition(ConditionType.PODS_READY) == ("False", "PodsNotReady")
    assert cluster.status.restarts.total == 0


def test_replaces_succeeded_peer_of_failed_pod() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.succeed(1).fail(0)
    cluster.reconcile_until_stable()
    assert cluster.created == ["j-0", "j-1", "j-0", "j-1"]
    assert cluster.status.restarts.failures == 1


def test_ready_condition_names_running_init_container() -> None:
    cluster = SimulatedCluster()
    cluster.reconcile_until_stable()
    cluster.update_pod(1, initializing="fetch").reconcile()
    assert cluster.condition(ConditionType.PODS_READY) == ("False", "PodsStarting")
    assert cluster.message(ConditionType.PODS_READY) == "0 of 2 pods are ready. Pod j-1 runs its init container fetch."


def created_after_loss_of_pod_1(cluster: SimulatedCluster) -> list[CreatePod]:
    del cluster.pods["j-1"]
    created = []
    for _ in range(20):
        created += [action for action in cluster.reconcile().actions if isinstance(action, CreatePod)]
        cluster.advance(10)
    return created


def test_replaced_pod_is_made_like_its_first_peer() -> None:
    """Image and document may be those of an earlier version of the operator."""
    cluster = SimulatedCluster(nodes=3).run_all_pods()
    assert created_after_loss_of_pod_1(cluster) == [CreatePod(1, 3, peer="j-0")]


@pytest.mark.parametrize("leaves", ["is being deleted", "has failed"])
def test_pods_that_leave_are_no_peers(leaves: str) -> None:
    cluster = SimulatedCluster(nodes=2).run_all_pods()
    if leaves == "has failed":
        cluster.fail(0)
    else:
        cluster.update_pod(0, deletion_deadline=cluster.now)
    created = created_after_loss_of_pod_1(cluster)
    assert created
    assert not [action for action in created if action.peer]
