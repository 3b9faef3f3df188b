"""runPolicy.activeDeadlineSeconds: a job fails when it has been active for longer than this."""

from __future__ import annotations

from datetime import timedelta

from finetune_operator.api.conditions import ConditionReason, parse_timestamp
from finetune_operator.reconcile.cleanup import fail
from finetune_operator.reconcile.plan import PlanBuilder


def enforce_deadline(plan: PlanBuilder) -> bool:
    """Fail the job if its deadline has passed. True if it has."""
    start_time = plan.status.start_time
    seconds = plan.job.spec.run_policy.active_deadline_seconds
    if seconds is None or start_time is None:
        return False
    has_passed = plan.requeue_at(parse_timestamp(start_time) + timedelta(seconds=seconds))
    if not has_passed:
        return False
    fail(
        plan,
        ConditionReason.DEADLINE_EXCEEDED,
        f"runPolicy.activeDeadlineSeconds: the job was active for longer than {seconds} s: "
        "apply it again with a longer deadline; it resumes from its newest checkpoint.",
    )
    return True
