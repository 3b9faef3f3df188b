"""runPolicy.activeDeadlineSeconds: a job fails when it has been active for too long."""

from __future__ import annotations

from datetime import timedelta

from finetune_operator.api.conditions import ConditionReason
from finetune_operator.reconcile.cleanup import fail
from finetune_operator.reconcile.observed_state import moment
from finetune_operator.reconcile.plan import PlanBuilder


def enforce(draft: PlanBuilder) -> bool:
    """Fail the job when its time is over."""
    seen, started = draft.seen, draft.status.start_time
    assert seen.job is not None
    seconds = seen.job.spec.run_policy.active_deadline_seconds
    if seconds is None or started is None or not draft.requeue_at(moment(started) + timedelta(seconds=seconds)):
        return False
    fail(
        draft,
        ConditionReason.DEADLINE_EXCEEDED,
        f"The job was active for longer than runPolicy.activeDeadlineSeconds, {seconds}: "
        "apply it again with more time; it goes on from its newest checkpoint.",
    )
    return True
