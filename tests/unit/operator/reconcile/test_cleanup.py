"""How jobs end, and what is left of them."""

from __future__ import annotations

import pytest
from tests.support.simulated_cluster import SimulatedCluster, document

from finetune_operator.api import FineTuneJob
from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile import DeleteJob, DeletePod, TerminatedState
from finetune_trainer.protocol.outcome import Progress, Reason, SavedCheckpoint

SAVED = SavedCheckpoint(step=20, time="2026-01-01T12:00:00Z", uri="s3://out/j/manifests/step-00000020.json")


def test_complete_with_what_pod_0_said_last() -> None:
    world = SimulatedCluster().running()
    progress = Progress(step=20, total_steps=20, percent=100, loss=1.5)
    world.succeed(0, model="s3://out/j/model", metrics={"loss": 1.5}, checkpoint=SAVED, progress=progress)
    plan = world.one_pass()
    status = world.status
    assert (status.phase, status.model, status.metrics) == ("Succeeded", "s3://out/j/model", {"loss": 1.5})
    assert (status.checkpoint, status.progress, status.failure) == (SAVED, progress, None)
    assert status.completion_time == "2026-01-01T12:00:00Z"
    assert world.condition(ConditionType.COMPLETE) == ("True", "Complete")
    assert world.message(ConditionType.COMPLETE) == "The model is stored at s3://out/j/model."
    assert world.condition(ConditionType.RUNNING) == ("False", "Finished")
    assert plan.actions == (), "the other pods are about to end by themselves"
    assert plan.requeue_after == 30


def test_leftover_pods_go_and_ended_ones_stay_for_their_logs() -> None:
    world = SimulatedCluster(nodes=3).running()
    world.succeed(0).succeed(1).settle()
    assert world.tick(30).one_pass().actions == (DeletePod("j-2", "pod-uid-3"),)
    world.settle()
    assert sorted(world.pods) == ["j-0", "j-1"]


def test_a_pod_killed_after_its_last_word_was_complete() -> None:
    world = SimulatedCluster().running()
    world.succeed(0, model="s3://m").change(0, phase="Failed", deletion_deadline=world.now).one_pass()
    assert world.status.phase == "Succeeded"


def test_exit_code_0_without_a_message_is_complete() -> None:
    world = SimulatedCluster(nodes=1).running()
    world.change(0, phase="Succeeded", ending=TerminatedState(0, "Completed")).one_pass()
    assert (world.status.phase, world.message(ConditionType.COMPLETE)) == ("Succeeded", "The run finished.")


@pytest.mark.parametrize("later", ["fail", "evict", "delete"])
def test_nothing_counts_after_the_end(later: str) -> None:
    world = SimulatedCluster().running()
    world.succeed(0).settle()
    before = world.status
    getattr(world, later)(1)
    world.settle()
    world.pods.clear()
    world.tick(1000).settle()
    assert world.status == before
    assert world.created == ["j-0", "j-1"]


@pytest.mark.parametrize("end", ["succeed", "fail"])
def test_ttl_deletes_the_job(end: str) -> None:
    world = SimulatedCluster(nodes=1, ttlSecondsAfterFinished=60, backoffLimit=0).running()
    getattr(world, end)(0)
    world.one_pass()
    assert world.status.completion_time is not None
    assert world.look().requeue_after == 60
    assert not world.tick(59).settle().actions
    assert not world.job_deleted
    assert world.tick(1).one_pass().actions == (DeleteJob(),)


def test_deadline() -> None:
    world = SimulatedCluster(activeDeadlineSeconds=100).running()
    assert world.look().requeue_after == 100
    assert world.tick(99).look().status.phase == "Running"
    plan = world.tick(1).one_pass()
    assert world.condition(ConditionType.FAILED) == ("True", "DeadlineExceeded")
    assert "runPolicy.activeDeadlineSeconds, 100" in world.message(ConditionType.FAILED)
    assert [type(action) for action in plan.actions] == [DeletePod, DeletePod]
    assert world.status.failure is not None
    assert world.status.failure.reason == "DeadlineExceeded"


def test_complete_is_complete_although_the_deadline_is_over() -> None:
    world = SimulatedCluster(activeDeadlineSeconds=100).running()
    world.tick(200).succeed(0).one_pass()
    assert world.status.phase == "Succeeded"


def test_an_unreadable_document_fails_without_pods() -> None:
    world = SimulatedCluster()
    world.job, world.seen = None, {"validation_errors": ("spec.model.config: needs model_type",)}
    plan = world.one_pass()
    assert plan.actions == ()
    assert world.status.phase == "Failed"
    assert world.condition(ConditionType.FAILED) == ("True", "InvalidConfiguration")
    assert "spec.model.config: needs model_type" in world.message(ConditionType.FAILED)
    assert world.settle().actions == ()


def test_a_running_job_survives_an_operator_that_cannot_read_it() -> None:
    world = SimulatedCluster().running()
    known, world.job = world.job, None
    world.seen = {"validation_errors": ("spec.x: no such field",)}
    assert world.one_pass().actions == ()
    assert world.status.phase == "Running"
    assert world.condition(ConditionType.PODS_READY) == ("Unknown", "DocumentUnreadable")
    world.job, world.seen = known, {}
    world.settle()
    assert world.condition(ConditionType.PODS_READY) == ("True", "PodsReady")
    assert world.status.restarts.total == 0


def test_it_can_still_complete() -> None:
    world = SimulatedCluster().running()
    world.job, world.seen = None, {"validation_errors": ("spec.x: no such field",)}
    world.succeed(0).one_pass()
    assert world.status.phase == "Succeeded"


def test_suspend_stops_the_pods_and_resume_starts_anew() -> None:
    world = SimulatedCluster(activeDeadlineSeconds=100).running()
    world.set_policy(suspend=True, activeDeadlineSeconds=100)
    plan = world.one_pass()
    assert [type(action) for action in plan.actions] == [DeletePod, DeletePod]
    assert (world.status.phase, world.status.start_time) == ("Suspended", None)
    assert world.message(ConditionType.SUSPENDED) == "2 pods of this job store a checkpoint and stop."
    world.fail(0, Reason.PREEMPTED).fail(1, Reason.PREEMPTED).settle()
    assert world.pods == {}
    assert world.status.restarts.total == 0, "pods that were told to stop did not fail"
    assert world.condition(ConditionType.SUSPENDED) == ("True", "Suspended")
    assert "set runPolicy.suspend: false" in world.message(ConditionType.SUSPENDED)
    assert world.tick(1000).settle().actions == ()
    world.set_policy(activeDeadlineSeconds=100)
    world.one_pass()
    assert (world.status.phase, world.status.start_time) == ("Pending", "2026-01-01T12:16:40Z")
    assert world.condition(ConditionType.SUSPENDED) == ("False", "Resumed")
    world.running()
    assert [note.reason for note in world.notes] == ["Suspended", "Resumed"]


def test_what_a_suspended_run_stored_on_its_way_out_is_written_at_once() -> None:
    world = SimulatedCluster().running()
    world.set_policy(suspend=True).one_pass()
    stored = SavedCheckpoint(step=70, time="2026-01-01T12:00:00Z", uri="s3://out/j/manifests/step-00000070.json")
    world.fail(0, Reason.PREEMPTED, checkpoint=stored, progress=Progress(step=70, total_steps=100))
    plan = world.one_pass()
    assert plan.urgent, "the pod is gone a moment later, and its word with it"
    assert world.status.checkpoint == stored
    assert world.status.progress is not None
    assert world.status.progress.step == 70


def test_resume_while_pods_still_stop_counts_nothing() -> None:
    world = SimulatedCluster().running()
    world.set_policy(suspend=True).one_pass()
    world.set_policy().one_pass()
    assert world.status.phase == "Pending"
    world.fail(0, Reason.PREEMPTED).one_pass()
    world.settle()
    assert world.status.restarts.total == 0
    assert world.created == ["j-0", "j-1", "j-0", "j-1"]
    world.running()


def test_a_job_that_is_born_suspended_makes_nothing() -> None:
    world = SimulatedCluster(suspend=True)
    assert world.settle().actions == ()
    assert world.status.phase == "Suspended"
    assert world.created == []


def test_finished_jobs_cannot_be_suspended() -> None:
    world = SimulatedCluster().running()
    world.succeed(0).settle()
    world.set_policy(suspend=True).settle()
    assert world.status.phase == "Succeeded"


def test_world_and_document_are_the_same_job() -> None:
    assert SimulatedCluster().job == FineTuneJob.model_validate(document())
