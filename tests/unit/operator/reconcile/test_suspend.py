"""runPolicy.suspend: suspension and resumption of jobs."""

from __future__ import annotations

from tests.support.simulated_cluster import SimulatedCluster

from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile import DeletePod
from finetune_trainer.protocol.outcome import Progress, Reason, SavedCheckpoint


def test_suspend_deletes_pods_and_resume_creates_them() -> None:
    cluster = SimulatedCluster(activeDeadlineSeconds=100).run_all_pods()
    cluster.set_run_policy(suspend=True, activeDeadlineSeconds=100)
    plan = cluster.reconcile()
    assert [type(action) for action in plan.actions] == [DeletePod, DeletePod]
    assert (cluster.status.phase, cluster.status.start_time) == ("Suspended", None)
    assert cluster.message(ConditionType.SUSPENDED) == "2 pods are saving a checkpoint and terminating."
    assert (cluster.status.workers.summary, cluster.status.workers.replicas) == ("0/2", 2)
    cluster.fail(0, Reason.PREEMPTED).reconcile()
    assert cluster.status.workers.replicas == 1, "the pod that has not stopped yet"
    cluster.fail(1, Reason.PREEMPTED).reconcile_until_stable()
    assert (cluster.pods, cluster.status.workers.replicas) == ({}, 0)
    assert cluster.status.restarts.total == 0, "pods that a suspension deletes do not count as failures"
    assert cluster.condition(ConditionType.SUSPENDED) == ("True", "Suspended")
    assert "set runPolicy.suspend: false" in cluster.message(ConditionType.SUSPENDED)
    assert cluster.advance(1000).reconcile_until_stable().actions == ()
    cluster.set_run_policy(activeDeadlineSeconds=100)
    cluster.reconcile()
    assert (cluster.status.phase, cluster.status.start_time) == ("Pending", "2026-01-01T12:16:40Z")
    assert cluster.condition(ConditionType.SUSPENDED) == ("False", "Resumed")
    cluster.run_all_pods()
    assert [event.reason for event in cluster.events] == ["Suspended", "Resumed"]


def test_records_last_checkpoint_of_suspended_run_at_once() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.set_run_policy(suspend=True).reconcile()
    stored = SavedCheckpoint(step=70, time="2026-01-01T12:00:00Z", uri="s3://out/j/manifests/step-00000070.json")
    cluster.fail(0, Reason.PREEMPTED, checkpoint=stored, progress=Progress(step=70, total_steps=100))
    plan = cluster.reconcile()
    assert plan.is_urgent, "the termination message is lost when the pod is deleted"
    assert cluster.status.checkpoint == stored
    assert cluster.status.progress is not None
    assert cluster.status.progress.step == 70


def test_resume_while_pods_terminate_counts_no_failure() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.set_run_policy(suspend=True).reconcile()
    cluster.set_run_policy().reconcile()
    assert cluster.status.phase == "Pending"
    cluster.fail(0, Reason.PREEMPTED).reconcile()
    cluster.reconcile_until_stable()
    assert cluster.status.restarts.total == 0
    assert cluster.created == ["j-0", "j-1", "j-0", "j-1"]
    cluster.run_all_pods()


def test_job_created_suspended_creates_no_pods() -> None:
    cluster = SimulatedCluster(suspend=True)
    assert cluster.reconcile_until_stable().actions == ()
    assert cluster.status.phase == "Suspended"
    assert cluster.created == []


def test_finished_job_cannot_be_suspended() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.succeed(0).reconcile_until_stable()
    cluster.set_run_policy(suspend=True).reconcile_until_stable()
    assert cluster.status.phase == "Succeeded"
