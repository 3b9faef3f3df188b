"""runPolicy.activeDeadlineSeconds."""

from __future__ import annotations

from tests.support.simulated_cluster import SimulatedCluster

from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile import DeletePod


def test_fails_at_deadline() -> None:
    cluster = SimulatedCluster(activeDeadlineSeconds=100).run_all_pods()
    assert cluster.plan().requeue_after == 100
    assert cluster.advance(99).plan().status.phase == "Running"
    plan = cluster.advance(1).reconcile()
    assert cluster.condition(ConditionType.FAILED) == ("True", "DeadlineExceeded")
    assert "runPolicy.activeDeadlineSeconds: the job was active for longer than 100 s" in cluster.message(ConditionType.FAILED)
    assert [type(action) for action in plan.actions] == [DeletePod, DeletePod]
    assert cluster.status.failure is not None
    assert cluster.status.failure.reason == "DeadlineExceeded"
