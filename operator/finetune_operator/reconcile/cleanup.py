"""The end of a job, and the cleanup after it.

Pods that still run are deleted, finished pods are kept for their logs, and the job is deleted after its time to live. The pods
that failed before a run succeeded are kept only with `keepFailedPods: Always`.
"""

from __future__ import annotations

from datetime import timedelta

from finetune_operator.api import Failure
from finetune_operator.api.conditions import (
    ConditionReason,
    ConditionType,
    find_condition,
    format_timestamp,
    is_finished,
    parse_timestamp,
)
from finetune_operator.api.scheduling import ORIGIN_LABEL
from finetune_operator.reconcile.failed_pods import delete_retained, delete_superseded
from finetune_operator.reconcile.plan import DeleteJob, DeletePod, PlanBuilder

# Conditions that describe a job only while it is active.
ACTIVE_CONDITIONS = (
    ConditionType.QUOTA_RESERVED,
    ConditionType.PODS_READY,
    ConditionType.RUNNING,
    ConditionType.RESTARTING,
    ConditionType.DEGRADED,
    ConditionType.SUSPENDED,
)


def finish(plan: PlanBuilder, condition_type: ConditionType, reason: str, message: str) -> None:
    """End the job with the condition Complete or Failed."""
    failed = condition_type is ConditionType.FAILED
    plan.update_status(
        phase="Failed" if failed else "Succeeded",
        completion_time=format_timestamp(plan.observed.now),
        eta=None,
        pending=None,
        counted_terminated_pods=[],
        workers=plan.status.workers.without_pods(),
    )
    finished = "The job failed." if failed else "The run is complete."
    for active in ACTIVE_CONDITIONS:
        if find_condition(plan.status.conditions, active) is not None:
            plan.set_condition(active, False, ConditionReason.FINISHED, finished)
    plan.set_condition(condition_type, True, reason, message)
    plan.emit_event("Warning" if failed else "Normal", reason, message)
    _delete_leftovers(plan)


def fail(plan: PlanBuilder, reason: str, message: str, failure: Failure | None = None) -> None:
    """End the job as failed; status.failure is `failure`, or else the given reason and message."""
    plan.update_status(failure=failure or Failure(reason=str(reason), message=message))
    finish(plan, ConditionType.FAILED, reason, message)


def clean_up_finished(plan: PlanBuilder) -> bool:
    """Delete the leftovers of a finished job. True if the job is finished: no policy counts or creates anything for it."""
    if not is_finished(plan.status):
        return False
    if plan.status.completion_time is None:
        plan.update_status(completion_time=format_timestamp(plan.observed.now))
    if plan.status.counted_terminated_pods:
        plan.update_status(counted_terminated_pods=[])
    _delete_leftovers(plan)
    return True


def _delete_leftovers(plan: PlanBuilder) -> None:
    observed, status = plan.observed, plan.status
    assert status.completion_time is not None, "the job is finished"
    completion_time = parse_timestamp(status.completion_time)
    grace = completion_time + timedelta(seconds=plan.timings.completion_grace)
    for pod in observed.pods:
        if pod.has_stopped or pod.is_being_deleted:
            continue
        # The other pods of a complete run exit by themselves within moments, and without a SIGTERM their logs stay clean. A
        # sidecar may never exit, and keeps the resources of its pod.
        exits_by_itself = status.phase == "Succeeded" or pod.is_finished
        if not exits_by_itself or plan.requeue_at(grace):
            plan.add_action(DeletePod(pod.name, pod.uid))
    run_policy = observed.job.spec.run_policy if observed.job is not None else None
    if status.phase == "Failed":
        delete_superseded(plan)
    if status.phase == "Succeeded" and run_policy is not None and run_policy.keep_failed_pods != "Always":
        delete_retained(plan)
    delete_expired(plan)


def delete_expired(plan: PlanBuilder) -> None:
    """Delete a finished job after its time to live.

    The copy of a job that MultiKueue has created in this cluster is left to MultiKueue: it would create a copy that is gone
    before it has read its end again, so that the job would run twice.
    """
    job, completion_time = plan.observed.job, plan.status.completion_time
    if job is None or completion_time is None or ORIGIN_LABEL in job.metadata.labels:
        return
    time_to_live = job.spec.run_policy.ttl_seconds_after_finished
    if time_to_live is not None and plan.requeue_at(parse_timestamp(completion_time) + timedelta(seconds=time_to_live)):
        plan.add_action(DeleteJob())
