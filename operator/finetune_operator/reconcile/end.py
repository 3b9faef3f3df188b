"""How a job ends, and what happens afterwards: leftover pods go, ended ones stay for their logs, later all goes."""

from __future__ import annotations

from datetime import timedelta

from finetune_operator.api import Failure
from finetune_operator.conditions import Type, Why, find, is_true, timestamp
from finetune_operator.reconcile.observed import moment
from finetune_operator.reconcile.plan import DeleteJob, DeletePod, Draft


def finish(draft: Draft, kind: Type, reason: str, message: str) -> None:
    """The job is over: complete or failed."""
    failed = kind is Type.FAILED
    draft.update(
        phase="Failed" if failed else "Succeeded",
        completion_time=timestamp(draft.seen.now),
        eta=None,
        counted_pods=[],
        workers=draft.status.workers.model_copy(update={"ready": 0, "summary": f"0/{draft.status.workers.desired}"}),
    )
    over = "The job failed." if failed else "The run finished."
    for passing in (Type.PODS_READY, Type.RUNNING, Type.RESTARTING, Type.SUSPENDED):
        if find(draft.status.conditions, passing) is not None:
            draft.condition(passing, False, Why.FINISHED, over)
    draft.condition(kind, True, reason, message)
    draft.note("Warning" if failed else "Normal", reason, message)
    _clear_up(draft)


def fail(draft: Draft, reason: str, message: str, failure: Failure | None = None) -> None:
    """The job is over and has failed; without another `failure` its reason and message are what is kept of it."""
    draft.update(failure=failure or Failure(reason=str(reason), message=message))
    finish(draft, Type.FAILED, reason, message)


def after_the_end(draft: Draft) -> bool:
    """Nothing is counted or created any more, whatever happens to the pods."""
    conditions = draft.status.conditions
    if not (is_true(conditions, Type.COMPLETE) or is_true(conditions, Type.FAILED)):
        return False
    if draft.status.counted_pods:
        draft.update(counted_pods=[])
    _clear_up(draft)
    return True


def _clear_up(draft: Draft) -> None:
    seen, status = draft.seen, draft.status
    ended_at = moment(status.completion_time or timestamp(seen.now))
    running = [pod for pod in seen.pods if not pod.ended and pod.gone_by is None]
    # Peers of a complete run are about to end by themselves; a second SIGTERM-free moment keeps their logs clean.
    grace = timedelta(seconds=0 if status.phase == "Failed" else draft.limits.leftover)
    if running and draft.wake_at(ended_at + grace):
        for pod in running:
            draft.act(DeletePod(pod.name, pod.uid))
    ttl = seen.job.spec.run_policy.ttl_seconds_after_finished if seen.job is not None else None
    if ttl is not None and draft.wake_at(ended_at + timedelta(seconds=ttl)):
        draft.act(DeleteJob())
