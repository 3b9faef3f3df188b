"""spec.managedBy: jobs of other controllers."""

from __future__ import annotations

import pytest
from tests.support.simulated_queue import QUEUE, QueuedCluster

from finetune_operator.api import JobStatus
from finetune_operator.api.conditions import ConditionType


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
    assert cluster.condition(ConditionType.QUOTA_RESERVED) is None
