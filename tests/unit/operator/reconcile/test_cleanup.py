"""Completion, failure, suspension and cleanup of jobs."""

from __future__ import annotations

import pytest
from tests.support.simulated_cluster import SimulatedCluster, document

from finetune_operator.api import FineTuneJob
from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile import DeleteJob, DeletePod, TerminatedState
from finetune_trainer.protocol.outcome import Progress, Reason, SavedCheckpoint

SAVED = SavedCheckpoint(step=20, time="2026-01-01T12:00:00Z", uri="s3://out/j/manifests/step-00000020.json")


def test_completes_with_outcome_of_first_pod() -> None:
    cluster = SimulatedCluster().run_all_pods()
    progress = Progress(step=20, total_steps=20, percent=100, loss=1.5)
    cluster.succeed(0, model="s3://out/j/model", metrics={"loss": 1.5}, checkpoint=SAVED, progress=progress)
    plan = cluster.reconcile()
    status = cluster.status
    assert (status.phase, status.model, status.metrics) == ("Succeeded", "s3://out/j/model", {"loss": 1.5})
    assert (status.checkpoint, status.progress, status.failure) == (SAVED, progress, None)
    assert status.completion_time == "2026-01-01T12:00:00Z"
    assert cluster.condition(ConditionType.COMPLETE) == ("True", "Complete")
    assert cluster.message(ConditionType.COMPLETE) == "The model is stored at s3://out/j/model."
    assert cluster.condition(ConditionType.RUNNING) == ("False", "Finished")
    assert plan.actions == (), "the other pods exit by themselves"
    assert plan.requeue_after == 30


def test_deletes_running_pods_and_keeps_finished_pods() -> None:
    cluster = SimulatedCluster(nodes=3).run_all_pods()
    cluster.succeed(0).succeed(1).reconcile_until_stable()
    assert cluster.advance(30).reconcile().actions == (DeletePod("j-2", "pod-uid-3"),)
    cluster.reconcile_until_stable()
    assert sorted(cluster.pods) == ["j-0", "j-1"]


def test_pod_killed_after_completion_message_completes_job() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.succeed(0, model="s3://m").update_pod(0, phase="Failed", deletion_deadline=cluster.now).reconcile()
    assert cluster.status.phase == "Succeeded"


def test_exit_code_0_without_message_completes_job() -> None:
    cluster = SimulatedCluster(nodes=1).run_all_pods()
    cluster.update_pod(0, phase="Succeeded", terminated=TerminatedState(0, "Completed")).reconcile()
    assert (cluster.status.phase, cluster.message(ConditionType.COMPLETE)) == ("Succeeded", "The run is complete.")


@pytest.mark.parametrize("later", ["fail", "evict", "delete"])
def test_finished_job_ignores_pod_failures(later: str) -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.succeed(0).reconcile_until_stable()
    before = cluster.status
    getattr(cluster, later)(1)
    cluster.reconcile_until_stable()
    cluster.pods.clear()
    cluster.advance(1000).reconcile_until_stable()
    assert cluster.status == before
    assert cluster.created == ["j-0", "j-1"]


@pytest.mark.parametrize("end", ["succeed", "fail"])
def test_deletes_job_after_ttl(end: str) -> None:
    cluster = SimulatedCluster(nodes=1, ttlSecondsAfterFinished=60, backoffLimit=0).run_all_pods()
    getattr(cluster, end)(0)
    cluster.reconcile()
    assert cluster.status.completion_time is not None
    assert cluster.plan().requeue_after == 60
    assert not cluster.advance(59).reconcile_until_stable().actions
    assert not cluster.job_deleted
    assert cluster.advance(1).reconcile().actions == (DeleteJob(),)


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


def test_completes_after_deadline() -> None:
    cluster = SimulatedCluster(activeDeadlineSeconds=100).run_all_pods()
    cluster.advance(200).succeed(0).reconcile()
    assert cluster.status.phase == "Succeeded"


def test_invalid_spec_fails_without_creating_pods() -> None:
    cluster = SimulatedCluster()
    cluster.job, cluster.observed = None, {"validation_errors": ("spec.model.config: needs model_type",)}
    plan = cluster.reconcile()
    assert plan.actions == ()
    assert cluster.status.phase == "Failed"
    assert cluster.condition(ConditionType.FAILED) == ("True", "InvalidConfiguration")
    assert "spec.model.config: needs model_type" in cluster.message(ConditionType.FAILED)
    assert cluster.reconcile_until_stable().actions == ()


def test_running_job_survives_operator_that_rejects_its_spec() -> None:
    cluster = SimulatedCluster().run_all_pods()
    valid_job, cluster.job = cluster.job, None
    cluster.observed = {"validation_errors": ("spec.x: no such field",)}
    assert cluster.reconcile().actions == ()
    assert cluster.status.phase == "Running"
    assert cluster.condition(ConditionType.PODS_READY) == ("Unknown", "InvalidSpec")
    cluster.job, cluster.observed = valid_job, {}
    cluster.reconcile_until_stable()
    assert cluster.condition(ConditionType.PODS_READY) == ("True", "PodsReady")
    assert cluster.status.restarts.total == 0


def test_job_with_invalid_spec_can_complete() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.job, cluster.observed = None, {"validation_errors": ("spec.x: no such field",)}
    cluster.succeed(0).reconcile()
    assert cluster.status.phase == "Succeeded"


def test_suspend_deletes_pods_and_resume_creates_them() -> None:
    cluster = SimulatedCluster(activeDeadlineSeconds=100).run_all_pods()
    cluster.set_run_policy(suspend=True, activeDeadlineSeconds=100)
    plan = cluster.reconcile()
    assert [type(action) for action in plan.actions] == [DeletePod, DeletePod]
    assert (cluster.status.phase, cluster.status.start_time) == ("Suspended", None)
    assert cluster.message(ConditionType.SUSPENDED) == "2 pods are saving a checkpoint and terminating."
    cluster.fail(0, Reason.PREEMPTED).fail(1, Reason.PREEMPTED).reconcile_until_stable()
    assert cluster.pods == {}
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
    assert plan.urgent, "the termination message is lost when the pod is deleted"
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


def test_simulated_cluster_runs_the_sample_document() -> None:
    assert SimulatedCluster().job == FineTuneJob.model_validate(document())
