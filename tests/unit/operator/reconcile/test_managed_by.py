"""spec.managedBy: jobs of other controllers."""

from __future__ import annotations

import pytest
from tests.support.simulated_queue import QUEUE, QueuedCluster

from finetune_operator.api import JobStatus, WorkersStatus
from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile import DeleteJob


@pytest.mark.parametrize(
    ("name", "manager", "has_pods", "has_workload"),
    [
        ("no manager", None, False, True),
        ("this operator", "finetune-operator.io/finetunejob-controller", False, True),
        ("MultiKueue dispatches by the Workload", "kueue.x-k8s.io/multikueue", False, True),
        ("another controller", "example.com/controller", False, False),
    ],
)
def test_job_with_queue(name: str, manager: str | None, has_pods: bool, has_workload: bool) -> None:
    cluster = QueuedCluster().edit(managedBy=manager, scheduling={"queueName": QUEUE})
    cluster.reconcile_until_stable()
    assert (bool(cluster.created), cluster.workload is not None) == (has_pods, has_workload)


@pytest.mark.parametrize("manager", ["kueue.x-k8s.io/multikueue", "example.com/controller"])
def test_leaves_status_and_pods_of_other_controllers_alone(manager: str) -> None:
    cluster = QueuedCluster().edit(managedBy=manager)
    cluster.status = JobStatus(phase="Running", counted_terminated_pods=["a pod of another cluster"])
    assert cluster.reconcile().actions == ()
    assert cluster.status == JobStatus(phase="Running", counted_terminated_pods=["a pod of another cluster"])


def test_multikueue_job_gives_quota_back_when_it_is_evicted() -> None:
    cluster = QueuedCluster().edit(managedBy="kueue.x-k8s.io/multikueue", scheduling={"queueName": QUEUE})
    cluster.reconcile_until_stable()
    cluster.admit().evict_workload().reconcile()
    assert cluster.workload_condition("QuotaReserved") == ("False", "Pending")
    assert (cluster.status.phase, cluster.status.reason) == ("Pending", "Evicted")
    assert cluster.condition(ConditionType.QUOTA_RESERVED) == ("False", "Evicted")


@pytest.mark.parametrize(
    ("name", "pods", "seconds", "is_released"),
    [
        ("its pods save a checkpoint in the other cluster", 2, 0, False),
        ("one of them is slow", 1, 40, False),
        ("the last one has stopped", 0, 0, True),
        ("the other cluster does not answer", 2, 61, True),
    ],
)
def test_multikueue_job_keeps_its_quota_until_it_has_stopped(name: str, pods: int, seconds: int, is_released: bool) -> None:
    policy = {"terminationGracePeriodSeconds": 30}
    manager = "kueue.x-k8s.io/multikueue"
    cluster = QueuedCluster().edit(managedBy=manager, scheduling={"queueName": QUEUE}, runPolicy=policy)
    cluster.reconcile_until_stable()
    cluster.admit().evict_workload()
    cluster.status = JobStatus(phase="Running", workers=WorkersStatus.of(0, 2, pods, None))
    plan = cluster.advance(seconds).reconcile()
    assert cluster.workload_condition("QuotaReserved")[0] == ("False" if is_released else "True")
    assert cluster.status.phase == ("Pending" if is_released else "Running")
    assert plan.requeue_after == (None if is_released else 60 - seconds)


def ended(manager: str | None, labels: dict[str, str]) -> QueuedCluster:
    """A job that has succeeded, and has a time to live of 60 seconds."""
    policy = {"ttlSecondsAfterFinished": 60}
    cluster = QueuedCluster().edit(managedBy=manager, scheduling={"queueName": QUEUE}, runPolicy=policy)
    assert cluster.job is not None
    cluster.job = cluster.job.model_copy(update={"metadata": cluster.job.metadata.model_copy(update={"labels": labels})})
    cluster.status = JobStatus(phase="Succeeded", completion_time="2026-01-01T12:00:00Z")
    return cluster


@pytest.mark.parametrize(
    ("name", "manager", "labels", "is_deleted"),
    [
        ("this operator", None, {}, True),
        ("MultiKueue, in the cluster of the user", "kueue.x-k8s.io/multikueue", {}, True),
        ("MultiKueue, in the cluster in which it ran", None, {"kueue.x-k8s.io/multikueue-origin": "multikueue"}, False),
        ("another controller", "example.com/controller", {}, False),
    ],
)
def test_who_deletes_a_job_after_its_time_to_live(
    name: str, manager: str | None, labels: dict[str, str], is_deleted: bool
) -> None:
    cluster = ended(manager, labels)
    assert DeleteJob() not in cluster.advance(59).reconcile().actions
    assert (DeleteJob() in cluster.advance(1).reconcile().actions) == is_deleted
