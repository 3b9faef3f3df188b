"""runPolicy.pendingTimeoutSeconds: a job of which a pod cannot start releases its resources, and tries again later.

All pods of a job wait until the last one runs. If that one cannot start, the others hold GPUs for nothing, and two jobs that
each got half of their pods would wait for each other for ever. So all pods are deleted and created again after a pause. Pauses
grow, and differ between jobs, so that one of two such jobs comes first.

A job that holds no resources is not released: there is nothing to release, and cluster autoscalers add nodes for pods that are
pending. It waits as long as any pending pod does; activeDeadlineSeconds bounds it.
"""

from __future__ import annotations

from datetime import timedelta

from finetune_operator.api import PendingPods
from finetune_operator.api.conditions import ConditionReason, format_timestamp, parse_timestamp
from finetune_operator.reconcile.backoff import doubled, jittered
from finetune_operator.reconcile.cleanup import fail
from finetune_operator.reconcile.group import is_member, reset_size
from finetune_operator.reconcile.observed_pod import ReasonMessage
from finetune_operator.reconcile.observed_state import is_retained
from finetune_operator.reconcile.obstacles import start_obstacle
from finetune_operator.reconcile.plan import PlanBuilder
from finetune_operator.reconcile.restart_policy import never_ran


def release_blocked_pods(plan: PlanBuilder) -> bool:
    """Release the pods of a job that cannot start. True if it has failed because it was released too often."""
    pending = plan.status.pending
    if pending is not None and pending.retry_time is not None:
        if not plan.requeue_at(parse_timestamp(pending.retry_time)):
            return False
        plan.update_status(pending=pending.model_copy(update={"release_time": None, "retry_time": None}))
    deleted = _deleted_before_start(plan)
    if deleted is not None:
        return _count_deleted(plan, deleted)
    cause = start_obstacle(plan)
    timeout = plan.job.spec.run_policy.pending_timeout_seconds
    if cause is None or not timeout or not _holds_resources(plan):
        _set_since(plan, None)
        return False
    since = plan.status.pending.since if plan.status.pending is not None else None
    since = since or format_timestamp(plan.observed.now)
    _set_since(plan, since)
    if plan.requeue_at(parse_timestamp(since) + timedelta(seconds=timeout)):
        return _release(plan, cause)
    return False


def release_deadline(plan: PlanBuilder) -> str | None:
    """Time at which the pods are released if they still cannot start; None if they are not to be released."""
    pending = plan.status.pending
    if pending is None or pending.since is None:
        return None
    seconds = plan.job.spec.run_policy.pending_timeout_seconds
    return format_timestamp(parse_timestamp(pending.since) + timedelta(seconds=seconds))


def _set_since(plan: PlanBuilder, since: str | None) -> None:
    pending = plan.status.pending
    if pending is None and since is None:
        return
    pending = (pending or PendingPods()).model_copy(update={"since": since})
    plan.update_status(pending=pending if pending != PendingPods() else None)


def _holds_resources(plan: PlanBuilder) -> bool:
    """Whether a pod is bound to a node, and so holds its resources."""
    return any(pod.node and not pod.has_stopped and not pod.is_being_deleted for pod in plan.pods)


def _deleted_before_start(plan: PlanBuilder) -> str | None:
    """Name of a pod that another client deleted while the job was starting or restarting."""
    counted = set(plan.observed.status.counted_terminated_pods)
    leaving = [pod for pod in plan.pods if never_ran(pod) and pod.uid not in plan.counted_pods and is_member(plan, pod)]
    if leaving:
        plan.mark_for_deletion(*leaving)
        return leaving[0].name
    if plan.observed.status.phase == "Running":  # the restart policy counts the pods that vanish from a running job
        return None
    for pod in plan.observed.vanished_pods:
        if pod.uid not in counted and not is_retained(plan.status, pod) and is_member(plan, pod):
            return pod.name
    return None


def _count_deleted(plan: PlanBuilder, pod_name: str) -> bool:
    """The first pod is created again at once; if it happens again in a row, the job is released with growing pauses."""
    cause = ReasonMessage(
        ConditionReason.POD_DELETED, f"Pod {pod_name} was deleted by another client before all pods of the job were ready."
    )
    if plan.status.pending is not None and plan.status.pending.releases:
        return _release(plan, cause)
    plan.update_status(pending=PendingPods(reason=str(cause.reason), message=cause.message, releases=1))
    plan.emit_event("Warning", cause.reason, cause.message)
    return False


def _release(plan: PlanBuilder, cause: ReasonMessage) -> bool:
    releases = 1 + (plan.status.pending.releases if plan.status.pending is not None else 0)
    limit = plan.job.spec.run_policy.pending_retry_limit
    if releases > limit:
        _fail(plan, limit, cause)
        return True
    observed, timings = plan.observed, plan.timings
    seconds = doubled(timings.pending_backoff_initial, timings.pending_backoff_max, releases)
    retry_time = format_timestamp(observed.now + jittered(seconds, f"{observed.uid} {releases}"))
    plan.mark_for_deletion(*plan.pods)
    plan.update_status(
        pending=PendingPods(
            reason=str(cause.reason),
            message=cause.message,
            releases=releases,
            release_time=format_timestamp(observed.now),
            retry_time=retry_time,
        )
    )
    reset_size(plan)
    plan.emit_event(
        "Warning",
        ConditionReason.PODS_RELEASED,
        f"{cause.message} All pods of the job are deleted and created again at {retry_time}.",
    )
    return False


def _fail(plan: PlanBuilder, limit: int, cause: ReasonMessage) -> None:
    times = "once" if limit == 1 else f"{limit} times"
    tried = f"the pods were created again {times} and still could not start" if limit else "the pods could not start"
    fail(
        plan,
        ConditionReason.PENDING_RETRY_LIMIT_EXCEEDED,
        f"runPolicy.pendingRetryLimit: {tried}. {cause.message} "
        "Remove the cause and apply the job again; it resumes from its newest checkpoint.",
    )
