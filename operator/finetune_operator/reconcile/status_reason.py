"""status.reason: one word next to the phase that says why a job does not run as it should, taken from the conditions."""

from __future__ import annotations

from finetune_operator.api import JobStatus
from finetune_operator.api.conditions import ConditionReason, ConditionType, find_condition
from finetune_operator.reconcile.plan import PlanBuilder

# Reasons of PodsReady that say nothing beyond the phase.
ORDINARY_REASONS = frozenset({ConditionReason.PODS_STARTING, ConditionReason.SUSPENDED, ConditionReason.FINISHED})


def set_reason(plan: PlanBuilder) -> None:
    """Derive status.reason from the conditions, after all other policies."""
    reason = status_reason(plan.status)
    if reason != plan.status.reason:
        plan.update_status(reason=reason)


def status_reason(status: JobStatus) -> str | None:
    """The reason of the condition that matters most; None if all is well."""
    match status.phase:
        case "Succeeded":
            return None
        case "Failed":
            return _reason(status, ConditionType.FAILED, "True")
    return (
        _reason(status, ConditionType.PODS_READY, "Unknown")
        or _reason(status, ConditionType.PODS_READY, "False")
        or _reason(status, ConditionType.RESTARTING, "True")
        or _reason(status, ConditionType.DEGRADED, "True")
        or _reason(status, ConditionType.CHECKPOINT_HEALTHY, "False")
    )


def _reason(status: JobStatus, condition_type: ConditionType, condition_status: str) -> str | None:
    condition = find_condition(status.conditions, condition_type)
    if condition is None or condition.status != condition_status or condition.reason in ORDINARY_REASONS:
        return None
    return condition.reason
