"""Completion of a job with the outcome of its first pod."""

from __future__ import annotations

import pytest
from tests.support.simulated_cluster import SimulatedCluster

from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile import DeletePod, TerminatedState
from finetune_trainer.protocol.outcome import Progress, SavedCheckpoint

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


def test_pod_killed_after_completion_message_completes_job() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.succeed(0, model="s3://m").update_pod(0, phase="Failed", deletion_deadline=cluster.now).reconcile()
    assert cluster.status.phase == "Succeeded"


@pytest.mark.parametrize("message", ["", "hello", '{"reason": "Crashed"}'])
@pytest.mark.parametrize("node", [0, 1])
def test_exit_code_0_without_an_outcome_is_a_failure(node: int, message: str) -> None:
    cluster = SimulatedCluster(backoffLimit=1).run_all_pods()
    for failures in (1, 2):
        cluster.update_pod(node, phase="Succeeded", ready=False, terminated=TerminatedState(0, "Completed", message))
        cluster.reconcile_until_stable()
        assert cluster.status.restarts.failures == failures
        cluster.advance(60).reconcile_until_stable()
    assert cluster.status.phase == "Failed"
    assert cluster.status.failure is not None
    reason = "Crashed" if "Crashed" in message else "OutcomeMissing"
    assert (cluster.status.failure.reason, cluster.status.failure.exit_code) == (reason, 0)
    assert cluster.condition(ConditionType.COMPLETE) is None


def test_completed_pods_that_were_deleted_unseen_are_created_again_and_report_the_same_outcome() -> None:
    """The ranks of the new pods find the completion record of the run."""
    cluster = SimulatedCluster().run_all_pods()
    cluster.pods.clear()
    cluster.reconcile_until_stable()
    assert sorted(cluster.pods) == ["j-0", "j-1"]
    assert cluster.created == ["j-0", "j-1", "j-0", "j-1"]
    cluster.succeed(0, model="s3://out/j/model", metrics={"loss": 1.5}).succeed(1).reconcile()
    assert (cluster.status.phase, cluster.status.model, cluster.status.metrics) == (
        "Succeeded",
        "s3://out/j/model",
        {"loss": 1.5},
    )
    assert cluster.status.restarts.failures == 0


def test_completes_beside_a_living_sidecar() -> None:
    """The pod stays Running: its sidecar never ends, so the pod is deleted some time after the completion."""
    cluster = SimulatedCluster(nodes=1).run_all_pods()
    cluster.succeed(0, model="s3://m").update_pod(0, phase="Running").reconcile()
    assert (cluster.status.phase, cluster.status.model) == ("Succeeded", "s3://m")
    assert cluster.advance(29).reconcile().actions == ()
    assert cluster.advance(1).reconcile().actions == (DeletePod("j-0", "pod-uid-1"),)


def test_completes_when_a_sidecar_fails_afterwards() -> None:
    cluster = SimulatedCluster(nodes=1).run_all_pods()
    cluster.succeed(0).update_pod(0, phase="Failed").reconcile()
    assert cluster.status.phase == "Succeeded"


def test_completes_after_deadline() -> None:
    cluster = SimulatedCluster(activeDeadlineSeconds=100).run_all_pods()
    cluster.advance(200).succeed(0).reconcile()
    assert cluster.status.phase == "Succeeded"
