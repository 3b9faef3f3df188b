"""scheduling.queueName: a job waits without pods until Kueue admits it, and stops with a checkpoint when Kueue evicts it.

The operator owns one Workload per job and follows the contract of Kueue's integrations of suspendable jobs: pods exist only
while the Workload is admitted, and quota is given back when the last pod has stopped.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal

from finetune_operator.api.conditions import ConditionReason, ConditionType, find_condition, is_true, parse_timestamp
from finetune_operator.api.scheduling import MULTIKUEUE_MANAGER
from finetune_operator.reconcile.managed_by import manager, queues_job, report_stopped
from finetune_operator.reconcile.observed_workload import Workload
from finetune_operator.reconcile.plan import (
    DeleteWorkload,
    EnsureWorkload,
    PlanBuilder,
    SetWorkloadActive,
    UpdateWorkloadStatus,
)
from finetune_operator.reconcile.stopping import describe_stopping, reset_backoff, stop_pods

REQUEUED_BY_EVICTION = ("Preempted", "NodeFailures")
"""Eviction reasons after which Kueue considers the job again at once; after others it waits for a back-off or a person."""

DEACTIVATED = "Deactivated"
REMOTE_STOP_MARGIN = timedelta(seconds=30)
"""For the eviction to reach the other cluster, and the end of the pods to be noticed there."""


def wait_for_admission(plan: PlanBuilder) -> bool:
    """Stop the pods of a queued job that is not admitted. True if the job may not run now."""
    queue = plan.job.queue_name
    if queue is None:
        conditions = [item for item in plan.status.conditions if item.type != ConditionType.QUOTA_RESERVED]
        if len(conditions) < len(plan.status.conditions):
            plan.update_status(conditions=conditions)
        return False
    if not plan.observed.workloads_synced:
        return True  # at the start of the operator: the job may well be admitted
    if plan.observed.queue_error is not None and plan.observed.pods:
        return False  # Kueue was removed while the job ran, so there is no quota to wait for
    workload = plan.observed.workload
    if workload is not None and workload.may_run:
        _mark_admitted(plan, queue, workload)
        return False
    _wait(plan, queue, workload)
    return True


def sync_workload(plan: PlanBuilder) -> None:
    """Bring the Workload in line with the job: create it, suspend it, give its quota back, finish it."""
    observed, workload = plan.observed, plan.observed.workload
    if not queues_job(plan) or not observed.workloads_synced or (workload is not None and workload.is_finished):
        return
    if any(is_true(plan.status.conditions, end) for end in (ConditionType.COMPLETE, ConditionType.FAILED)):
        if workload is not None and not _has_active_pods(plan):
            _update_status(plan, workload, _finished(plan, workload))
    elif observed.job is None:
        return
    elif observed.job.queue_name is None:
        if workload is not None:
            plan.add_action(DeleteWorkload(workload.name, workload.uid))
    elif workload is None:
        if not _is_suspended(plan) and not _has_active_pods(plan) and observed.queue_error is None:
            plan.add_action(EnsureWorkload())
    elif workload.active == _is_suspended(plan) and (workload.active or workload.deactivated_by_job):
        plan.add_action(SetWorkloadActive(workload.name, not workload.active))
    elif workload.is_evicted and workload.has_quota:
        if not _has_active_pods(plan) and not _stops_in_other_cluster(plan, workload):
            if manager(plan) == MULTIKUEUE_MANAGER:
                report_stopped(plan, _obstacle(plan, observed.job.queue_name, workload)[1])
            _update_status(plan, workload, _released(workload, observed.now))
    elif not workload.has_quota and workload.spec_hash != observed.workload_hash:
        plan.add_action(EnsureWorkload())
    else:
        _update_status(plan, workload, _with_pods_ready(plan, workload))


def _wait(plan: PlanBuilder, queue: str, workload: Workload | None) -> None:
    status, pods = plan.status, len(plan.observed.pods)
    reason, message = _obstacle(plan, queue, workload)
    if is_true(status.conditions, ConditionType.QUOTA_RESERVED):
        plan.emit_event("Warning", reason, message)
    stop_pods(plan)
    reset_backoff(plan)
    plan.update_status(phase="Pending")
    plan.set_condition(ConditionType.QUOTA_RESERVED, False, reason, message)
    stopped = describe_stopping(pods) if pods else "A job that waits for its queue has no pods."
    plan.set_condition(ConditionType.PODS_READY, False, reason, stopped)
    for active in (ConditionType.RUNNING, ConditionType.RESTARTING):
        if is_true(status.conditions, active):
            plan.set_condition(active, False, reason, message)


def _obstacle(plan: PlanBuilder, queue: str, workload: Workload | None) -> tuple[str, str]:
    """Why the job may not run: reason and message."""
    if workload is None:
        if error := plan.observed.queue_error or plan.observed.create_error:
            return error.reason, error.message
        return ConditionReason.QUEUED, f"The job is about to enter the queue {queue}."
    if workload.is_finished:
        finished = workload.condition("Finished")
        cause = finished.message if finished is not None else ""
        return ConditionReason.DEACTIVATED, f"Workload {workload.name} is finished: {cause}: delete it to queue the job again."
    evicted = workload.condition("Evicted")
    if workload.has_quota and evicted is not None and evicted.status == "True":
        return ConditionReason.EVICTED, f"Kueue stops the job ({evicted.reason}): {evicted.message}"
    if not workload.active and not workload.deactivated_by_job:
        cause = f": {evicted.message}" if evicted is not None else ""
        message = f"Workload {workload.name} is deactivated{cause}: set its spec.active to true to queue the job again."
        return ConditionReason.DEACTIVATED, message
    reserved = workload.condition("QuotaReserved")
    if workload.has_quota:
        return ConditionReason.QUEUED, f"Quota is reserved in {workload.cluster_queue}; admission checks are not complete."
    if reserved is not None and reserved.reason == "Inadmissible":
        return ConditionReason.INADMISSIBLE, f"scheduling.queueName: {reserved.message}: create it or correct the name."
    cause = f": {reserved.message}" if reserved is not None and reserved.message else "."
    return ConditionReason.QUEUED, f"The job waits in the queue {queue}{cause}"


def _mark_admitted(plan: PlanBuilder, queue: str, workload: Workload) -> None:
    previous = find_condition(plan.status.conditions, ConditionType.QUOTA_RESERVED)
    message = f"ClusterQueue {workload.cluster_queue} admitted the job from the queue {queue}."
    if previous is None or previous.status != "True":
        plan.emit_event("Normal", ConditionReason.ADMITTED, message)
    plan.set_condition(ConditionType.QUOTA_RESERVED, True, ConditionReason.ADMITTED, message)


def _is_suspended(plan: PlanBuilder) -> bool:
    return plan.job.spec.run_policy.suspend


def _has_active_pods(plan: PlanBuilder) -> bool:
    """Whether a pod may still use the resources of its node."""
    return any(not pod.is_finished for pod in plan.observed.pods)


def _stops_in_other_cluster(plan: PlanBuilder, workload: Workload) -> bool:
    """Whether pods may still save a checkpoint in the cluster in which MultiKueue runs the job.

    Without quota MultiKueue deletes the job there, and may run it in a third cluster, where it would find its storage in use.
    It copies no status from a cluster that does not answer, or after it has deleted the job there because it was suspended, so
    the wait ends with the grace period.
    """
    evicted = workload.condition("Evicted")
    if manager(plan) != MULTIKUEUE_MANAGER or evicted is None or plan.status.workers.replicas == 0:
        return False
    grace = timedelta(seconds=plan.job.spec.run_policy.termination_grace_period_seconds)
    return not plan.requeue_at(parse_timestamp(evicted.last_transition_time) + grace + REMOTE_STOP_MARGIN)


def _update_status(plan: PlanBuilder, workload: Workload, updated: Workload) -> None:
    if updated != workload:
        plan.add_action(
            UpdateWorkloadStatus(
                name=workload.name,
                resource_version=workload.resource_version,
                conditions=updated.conditions,
                releases_quota=workload.has_quota and not updated.has_quota,
                past_execution_seconds=updated.past_execution_seconds,
            )
        )


def _finished(plan: PlanBuilder, workload: Workload) -> Workload:
    end, reason = ConditionType.COMPLETE, "Succeeded"
    if is_true(plan.status.conditions, ConditionType.FAILED):
        end, reason = ConditionType.FAILED, "Failed"
    condition = find_condition(plan.status.conditions, end)
    message = condition.message if condition is not None else ""
    return workload.with_condition("Finished", "True", reason, message, plan.observed.now)


def _released(workload: Workload, now: datetime) -> Workload:
    """The Workload without its admission, as Kueue's own integrations leave it when the last pod has stopped."""
    evicted, admitted = workload.condition("Evicted"), workload.condition("Admitted")
    assert evicted is not None
    requeued: Literal["True", "False"] = "True" if evicted.reason in REQUEUED_BY_EVICTION else "False"
    seconds = workload.past_execution_seconds
    if admitted is not None and admitted.status == "True":
        seconds += int((now - parse_timestamp(admitted.last_transition_time)).total_seconds())
    # Kueue appends a cause to this reason, but queues a reactivated Workload again only if it finds the reason alone here.
    reason = DEACTIVATED if evicted.reason.startswith(DEACTIVATED) else evicted.reason
    result = workload.with_condition("Requeued", requeued, reason, evicted.message, now)
    result = result.with_condition("QuotaReserved", "False", "Pending", evicted.message, now)
    result = result.with_condition("Admitted", "False", "NoReservation", "The workload has no reservation", now)
    return replace(result, past_execution_seconds=seconds)


def _with_pods_ready(plan: PlanBuilder, workload: Workload) -> Workload:
    """The Workload with the condition PodsReady, with which Kueue's waitForPodsReady limits the time until all pods run."""
    if not workload.may_run:
        return workload
    previous = workload.condition("PodsReady")
    recovers = previous is not None and (previous.status == "True" or previous.reason in ("WaitForRecovery", "Recovered"))
    if is_true(plan.status.conditions, ConditionType.PODS_READY):
        if previous is not None and previous.status == "True":
            return workload
        reason, message = "Recovered" if recovers else "Started", "All pods are ready."
        return workload.with_condition("PodsReady", "True", reason, message, plan.observed.now)
    reason = "WaitForRecovery" if recovers else "WaitForStart"
    return workload.with_condition("PodsReady", "False", reason, "Not all pods are ready.", plan.observed.now)
