"""scheduling.queueName: admission by Kueue, eviction with a checkpoint, and the Workload that the job keeps."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.simulated_queue import QUEUE, QueuedCluster

from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile import DeletePod, EnsureWorkload, ReasonMessage
from finetune_trainer.protocol.outcome import Progress, Reason, SavedCheckpoint

QUOTA = ConditionType.QUOTA_RESERVED


def admitted(nodes: int = 2, **run_policy: Any) -> QueuedCluster:
    """A job whose Workload is admitted, before its pods are created."""
    cluster = QueuedCluster(nodes, **run_policy)
    cluster.reconcile_until_stable()
    return cluster.admit()


def running(nodes: int = 2, **run_policy: Any) -> QueuedCluster:
    """An admitted job whose pods are ready."""
    cluster = admitted(nodes, **run_policy)
    cluster.run_all_pods()
    return cluster


def test_waits_without_pods_until_admitted_as_a_whole() -> None:
    cluster = QueuedCluster()
    cluster.reconcile_until_stable()
    assert (cluster.workloads_created, cluster.pods, cluster.status.phase) == (1, {}, "Pending")
    assert cluster.condition(QUOTA) == ("False", "Queued")
    cluster.reject("Pending", "couldn't assign flavors to pod set main: insufficient quota for cpu").reconcile()
    expected = f"The job waits in the queue {QUEUE}: couldn't assign flavors to pod set main: insufficient quota for cpu"
    assert cluster.message(QUOTA) == expected
    assert cluster.status.start_time is None, "activeDeadlineSeconds begins with the pods"
    cluster.admit().reconcile()
    assert cluster.created == ["j-0", "j-1"]
    assert cluster.condition(QUOTA) == ("True", "Admitted")
    assert cluster.message(QUOTA) == f"ClusterQueue gpus admitted the job from the queue {QUEUE}."
    assert [event.reason for event in cluster.events] == ["Admitted"]


def test_waits_for_admission_checks_after_quota_is_reserved() -> None:
    cluster = QueuedCluster()
    cluster.reconcile_until_stable()
    assert cluster.workload is not None
    conditions = cluster.workload.with_condition("QuotaReserved", "True", "QuotaReserved", "", cluster.now).conditions
    cluster.change_workload(conditions=conditions, cluster_queue="gpus").reconcile_until_stable()
    assert cluster.pods == {}
    assert cluster.message(QUOTA) == "Quota is reserved in gpus; admission checks are not complete."


def test_preempted_job_saves_a_checkpoint_gives_quota_back_and_continues() -> None:
    cluster = running(backoffLimit=0)
    cluster.advance(100)
    cluster.evict_workload().reconcile()
    assert all(pod.is_being_deleted for pod in cluster.pods.values())
    assert (cluster.status.phase, cluster.condition(QUOTA)) == ("Pending", ("False", "Evicted"))
    assert cluster.message(QUOTA) == "Kueue stops the job (Preempted): Preempted to accommodate a workload"
    assert cluster.message(ConditionType.PODS_READY) == "2 pods are saving a checkpoint and terminating."
    assert cluster.workload is not None
    assert cluster.workload.has_quota, "the pods still use the nodes"
    stored = SavedCheckpoint(step=70, time="2026-01-01T12:00:00Z", uri="s3://out/j/manifests/step-00000070.json")
    cluster.fail(0, Reason.PREEMPTED, checkpoint=stored, progress=Progress(step=70, total_steps=100)).reconcile()
    assert cluster.status.checkpoint == stored
    assert cluster.workload.has_quota, "one pod still uses its node"
    cluster.fail(1, Reason.PREEMPTED).reconcile_until_stable()
    assert cluster.pods == {}
    assert cluster.workload_condition("QuotaReserved") == ("False", "Pending")
    assert cluster.workload_condition("Admitted") == ("False", "NoReservation")
    assert cluster.workload_condition("Requeued") == ("True", "Preempted")
    assert (cluster.workload.cluster_queue, cluster.workload.past_execution_seconds) == ("", 100)
    assert cluster.condition(QUOTA) == ("False", "Queued")
    cluster.admit()
    cluster.run_all_pods()
    assert cluster.status.restarts.total == 0, "a preemption by the queue is no failure and no disruption"
    assert cluster.created == ["j-0", "j-1", "j-0", "j-1"]


@pytest.mark.parametrize(
    ("reason", "requeued"),
    [
        ("Preempted", "True"),
        ("NodeFailures", "True"),
        ("PodsReadyTimeout", "False"),
        ("AdmissionCheck", "False"),
        ("ClusterQueueStopped", "False"),
        ("Deactivated", "False"),
        ("DeactivatedDueToRequeuingLimitExceeded", "False"),
    ],
)
def test_requeues_at_once_only_after_preemption(reason: str, requeued: str) -> None:
    cluster = running()
    cluster.evict_workload(reason).reconcile()
    cluster.end_pods().reconcile_until_stable()
    assert cluster.workload_condition("Requeued") == (requeued, reason.partition("DueTo")[0])
    assert cluster.workload_condition("Evicted") == ("True", reason), "Kueue resets it at the next admission"


def test_pod_that_ends_in_an_eviction_counts_as_no_failure() -> None:
    cluster = running(backoffLimit=0)
    cluster.evict_workload().reconcile()
    cluster.fail(0, Reason.CRASHED).fail(1, Reason.CRASHED).reconcile_until_stable()
    assert (cluster.status.phase, cluster.status.restarts.total) == ("Pending", 0)


def test_suspension_deactivates_the_workload_and_resumption_activates_it() -> None:
    cluster = running()
    cluster.set_run_policy(suspend=True).reconcile()
    assert cluster.workload is not None
    assert (cluster.workload.active, cluster.workload.deactivated_by_job) == (False, True)
    cluster.evict_workload("Deactivated", "The workload is deactivated").end_pods().reconcile_until_stable()
    assert not cluster.workload.has_quota
    assert cluster.condition(QUOTA) == ("False", "Suspended")
    cluster.set_run_policy().reconcile()
    assert (cluster.workload.active, cluster.workload.deactivated_by_job) == (True, False)
    assert cluster.created == ["j-0", "j-1"], "a resumed job waits for quota"
    cluster.admit()
    cluster.run_all_pods()


def test_deactivation_by_kueue_is_not_undone() -> None:
    cluster = running()
    cluster.change_workload(active=False).evict_workload("Deactivated", "exceeded the limit of requeues").reconcile()
    cluster.end_pods().reconcile_until_stable()
    assert cluster.workload is not None
    assert not cluster.workload.active
    assert cluster.condition(QUOTA) == ("False", "Deactivated")
    assert cluster.message(QUOTA) == (
        "Workload finetunejob-j-12345 is deactivated: exceeded the limit of requeues: set its spec.active to true "
        "to queue the job again."
    )


def test_job_created_suspended_has_no_workload() -> None:
    cluster = QueuedCluster(suspend=True)
    cluster.reconcile_until_stable()
    assert cluster.workload is None


def test_workload_follows_the_spec_while_the_job_has_no_quota() -> None:
    cluster = QueuedCluster()
    cluster.reconcile_until_stable()
    cluster.spec_hash = "other"
    cluster.set_run_policy().reconcile_until_stable()
    assert cluster.workload is not None
    assert cluster.workload.spec_hash == "other"
    cluster.admit().reconcile()
    cluster.spec_hash = "newer"
    plan = cluster.set_run_policy().plan()
    assert EnsureWorkload() not in plan.actions, "an upgrade of the operator does not disturb a running job"


@pytest.mark.parametrize(("fails", "reason"), [(False, "Succeeded"), (True, "Failed")])
def test_finished_job_finishes_its_workload_when_no_pod_is_left(fails: bool, reason: str) -> None:
    cluster = running()
    if fails:
        cluster.fail(0, Reason.INVALID_CONFIGURATION)
    else:
        cluster.succeed(0)
    cluster.reconcile()
    assert cluster.workload_condition("Finished") is None, "another pod still runs"
    cluster.advance(60).reconcile()
    cluster.end_pods().reconcile_until_stable()
    assert cluster.workload_condition("Finished") == ("True", reason)
    assert cluster.reconcile_until_stable().actions == ()


def test_reports_ready_pods() -> None:
    cluster = admitted()
    cluster.reconcile()
    assert cluster.workload_condition("PodsReady") == ("False", "WaitForStart")
    cluster.run_all_pods()
    assert cluster.workload_condition("PodsReady") == ("True", "Started")
    cluster.fail(1).reconcile_until_stable()
    assert cluster.workload_condition("PodsReady") == ("False", "WaitForRecovery")
    cluster.run_all_pods()
    assert cluster.workload_condition("PodsReady") == ("True", "Recovered")


def test_deleted_workload_stops_the_job_and_queues_it_again() -> None:
    cluster = running()
    cluster._store(None).reconcile()
    assert all(pod.is_being_deleted for pod in cluster.pods.values())
    assert cluster.workload is None, "a new Workload has to wait for the pods of the old one"
    cluster.end_pods().reconcile_until_stable()
    assert cluster.workloads_created == 2
    assert cluster.condition(QUOTA) == ("False", "Queued")


def test_restarted_operator_waits_for_its_workloads() -> None:
    cluster = running()
    workload = cluster.workload
    cluster._store(None).observed["workloads_synced"] = False
    plan = cluster.reconcile()
    assert plan.actions == ()
    assert cluster.status.phase == "Running"
    cluster._store(workload).observed["workloads_synced"] = True
    assert not any(isinstance(action, DeletePod) for action in cluster.reconcile().actions)


def test_names_what_is_missing() -> None:
    missing = ReasonMessage("KueueNotInstalled", "scheduling.queueName: Kueue is not installed: install it.")
    cluster = QueuedCluster()
    cluster.observed["queue_error"] = missing
    assert cluster.reconcile_until_stable().actions == ()
    assert cluster.condition(QUOTA) == ("False", "KueueNotInstalled")
    assert cluster.message(QUOTA) == missing.message
    cluster.observed["queue_error"] = None
    cluster.reconcile_until_stable()
    cluster.reject("Inadmissible", "LocalQueue team-queue doesn't exist").reconcile()
    assert cluster.condition(QUOTA) == ("False", "Inadmissible")
    assert cluster.message(QUOTA) == (
        "scheduling.queueName: LocalQueue team-queue doesn't exist: create it or correct the name."
    )


def test_removal_of_kueue_leaves_a_running_job_alone() -> None:
    cluster = running()
    cluster._store(None).observed["queue_error"] = ReasonMessage("KueueNotInstalled", "Kueue is not installed.")
    assert cluster.reconcile_until_stable().actions == ()
    assert cluster.status.phase == "Running"


def test_waits_for_the_flavor_before_pods_are_created() -> None:
    cluster = admitted()
    cluster.observed["placement_error"] = ReasonMessage("ResourceFlavorNotFound", "h100 cannot be read")
    plan = cluster.reconcile_until_stable()
    assert (cluster.pods, plan.requeue_after) == ({}, 10)
    assert cluster.condition(ConditionType.PODS_READY) == ("False", "ResourceFlavorNotFound")


def test_job_that_leaves_its_queue_deletes_its_workload() -> None:
    cluster = QueuedCluster()
    cluster.reconcile_until_stable()
    cluster.set_run_policy(suspend=True).reconcile_until_stable()
    cluster.edit(runPolicy={}, scheduling={}).reconcile_until_stable()
    assert cluster.workload is None
    assert cluster.created == ["j-0", "j-1"]
    assert cluster.condition(QUOTA) is None


def test_finished_job_whose_spec_is_invalid_gives_quota_back() -> None:
    cluster = running()
    cluster.succeed(0).succeed(1).job = None
    cluster.reconcile_until_stable()
    assert cluster.workload_condition("Finished") == ("True", "Succeeded")
