"""How a job ends, and what happens afterwards: leftover pods go, ended ones stay for their logs, later all goes."""

from __future__ import annotations

from datetime import timedelta

from finetune_operator.api import Failure
from finetune_operator.api.conditions import ConditionReason, ConditionType, find_condition, is_true, timestamp
from finetune_operator.reconcile.observed_state import moment
from finetune_operator.reconcile.plan import DeleteJob, DeletePod, PlanBuilder


def finish(draft: PlanBuilder, kind: ConditionType, reason: str, message: str) -> None:
    """The job is over: complete or failed."""
    failed = kind is ConditionType.FAILED
    draft.update(
        phase="Failed" if failed else "Succeeded",
        completion_time=timestamp(draft.seen.now),
        eta=None,
        counted_terminated_pods=[],
        workers=draft.status.workers.model_copy(update={"ready": 0, "summary": f"0/{draft.status.workers.desired}"}),
    )
    over = "The job failed." if failed else "The run finished."
    for passing in (ConditionType.PODS_READY, ConditionType.RUNNING, ConditionType.RESTARTING, ConditionType.SUSPENDED):
        if find_condition(draft.status.conditions, passing) is not None:
            draft.condition(passing, False, ConditionReason.FINISHED, over)
    draft.condition(kind, True, reason, message)
    draft.note("Warning" if failed else "Normal", reason, message)
    _delete_leftovers(draft)


def fail(draft: PlanBuilder, reason: str, message: str, failure: Failure | None = None) -> None:
    """The job is over and has failed; without another `failure` its reason and message are what is kept of it."""
    draft.update(failure=failure or Failure(reason=str(reason), message=message))
    finish(draft, ConditionType.FAILED, reason, message)


def after_finished(draft: PlanBuilder) -> bool:
    """Nothing is counted or created any more, whatever happens to the pods."""
    conditions = draft.status.conditions
    if not (is_true(conditions, ConditionType.COMPLETE) or is_true(conditions, ConditionType.FAILED)):
        return False
    if draft.status.counted_terminated_pods:
        draft.update(counted_terminated_pods=[])
    _delete_leftovers(draft)
    return True


def _delete_leftovers(draft: PlanBuilder) -> None:
    seen, status = draft.seen, draft.status
    ended_at = moment(status.completion_time or timestamp(seen.now))
    running = [pod for pod in seen.pods if not pod.ended and pod.deletion_deadline is None]
    # Peers of a complete run are about to end by themselves; a second SIGTERM-free moment keeps their logs clean.
    grace = timedelta(seconds=0 if status.phase == "Failed" else draft.limits.leftover)
    if running and draft.requeue_at(ended_at + grace):
        for pod in running:
            draft.act(DeletePod(pod.name, pod.uid))
    ttl = seen.job.spec.run_policy.ttl_seconds_after_finished if seen.job is not None else None
    if ttl is not None and draft.requeue_at(ended_at + timedelta(seconds=ttl)):
        draft.act(DeleteJob())
