"""runPolicy.activeDeadlineSeconds: a job fails when it has been active for too long."""

from __future__ import annotations

from datetime import timedelta

from finetune_operator.conditions import Why
from finetune_operator.reconcile.end import fail
from finetune_operator.reconcile.observed import moment
from finetune_operator.reconcile.plan import Draft


def enforce(draft: Draft) -> bool:
    """Fail the job when its time is over."""
    seen, started = draft.seen, draft.status.start_time
    assert seen.job is not None
    seconds = seen.job.spec.run_policy.active_deadline_seconds
    if seconds is None or started is None or not draft.wake_at(moment(started) + timedelta(seconds=seconds)):
        return False
    fail(
        draft,
        Why.DEADLINE_EXCEEDED,
        f"The job was active for longer than runPolicy.activeDeadlineSeconds, {seconds}: "
        "apply it again with more time; it goes on from its newest checkpoint.",
    )
    return True
