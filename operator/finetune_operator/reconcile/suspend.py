"""runPolicy.suspend: true deletes the pods after they have saved a checkpoint, false creates them again."""

from __future__ import annotations

from finetune_operator.api.conditions import ConditionReason, ConditionType, find_condition, is_true
from finetune_operator.reconcile.plan import PlanBuilder
from finetune_operator.reconcile.stopping import describe_stopping, reset_backoff, stop_pods


def suspend(plan: PlanBuilder) -> bool:
    """Suspend or resume the job. True if it is suspended."""
    if not plan.job.spec.run_policy.suspend:
        _resume(plan)
        return False
    if plan.status.phase != "Suspended":
        message = "The job is suspended: its pods save a checkpoint and terminate."
        plan.emit_event("Normal", ConditionReason.SUSPENDED, message)
    stop_pods(plan)
    plan.update_status(phase="Suspended")
    plan.set_condition(ConditionType.SUSPENDED, True, ConditionReason.SUSPENDED, _suspended_message(len(plan.observed.pods)))
    plan.set_condition(ConditionType.PODS_READY, False, ConditionReason.SUSPENDED, "A suspended job has no running pods.")
    plan.set_condition(ConditionType.RUNNING, False, ConditionReason.SUSPENDED, "The job is suspended.")
    if is_true(plan.status.conditions, ConditionType.RESTARTING):
        plan.set_condition(ConditionType.RESTARTING, False, ConditionReason.SUSPENDED, "The job is suspended.")
    if find_condition(plan.status.conditions, ConditionType.QUOTA_RESERVED) is not None:
        plan.set_condition(
            ConditionType.QUOTA_RESERVED, False, ConditionReason.SUSPENDED, "A suspended job gives its quota back."
        )
    return True


def _resume(plan: PlanBuilder) -> None:
    if plan.status.phase != "Suspended":
        return
    reset_backoff(plan)
    plan.update_status(phase="Pending")
    message = "The job resumes from its newest checkpoint."
    plan.set_condition(ConditionType.SUSPENDED, False, ConditionReason.RESUMED, message)
    plan.emit_event("Normal", ConditionReason.RESUMED, message)


def _suspended_message(pods: int) -> str:
    if pods == 0:
        return "No pods are running; set runPolicy.suspend: false to resume."
    return describe_stopping(pods)
