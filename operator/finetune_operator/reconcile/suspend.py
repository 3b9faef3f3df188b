"""runPolicy.suspend: true deletes the pods after they have saved a checkpoint, false creates them again."""

from __future__ import annotations

from finetune_operator.api import WorkersStatus
from finetune_operator.api.conditions import ConditionReason, ConditionType, is_true
from finetune_operator.reconcile.plan import PlanBuilder
from finetune_operator.reconcile.pod_failure import parse_outcome
from finetune_operator.reconcile.progress import record_outcome


def suspend(plan: PlanBuilder) -> bool:
    """Suspend or resume the job. True if it is suspended."""
    if not plan.job.spec.run_policy.suspend:
        _resume(plan)
        return False
    if plan.status.phase != "Suspended":
        message = "The job is suspended: its pods save a checkpoint and terminate."
        plan.emit_event("Normal", ConditionReason.SUSPENDED, message)
    plan.mark_for_deletion(*plan.observed.pods)
    _record_last_checkpoint(plan)
    workers = WorkersStatus.of(0, plan.job.spec.workers.nodes)
    plan.update_status(phase="Suspended", start_time=None, eta=None, workers=workers)
    plan.set_condition(ConditionType.SUSPENDED, True, ConditionReason.SUSPENDED, _suspended_message(len(plan.observed.pods)))
    plan.set_condition(ConditionType.PODS_READY, False, ConditionReason.SUSPENDED, "A suspended job has no pods.")
    plan.set_condition(ConditionType.RUNNING, False, ConditionReason.SUSPENDED, "The job is suspended.")
    if is_true(plan.status.conditions, ConditionType.RESTARTING):
        plan.set_condition(ConditionType.RESTARTING, False, ConditionReason.SUSPENDED, "The job is suspended.")
    return True


def _record_last_checkpoint(plan: PlanBuilder) -> None:
    """Record the checkpoint that the first pod saved while it terminated."""
    for pod in plan.observed.pods:
        outcome = parse_outcome(pod)
        if pod.index == 0 and outcome is not None:
            record_outcome(plan, outcome)


def _resume(plan: PlanBuilder) -> None:
    if plan.status.phase != "Suspended":
        return
    restarts = plan.status.restarts.model_copy(update={"consecutive": 0})
    plan.update_status(phase="Pending", restarts=restarts)
    message = "The job resumes from its newest checkpoint."
    plan.set_condition(ConditionType.SUSPENDED, False, ConditionReason.RESUMED, message)
    plan.emit_event("Normal", ConditionReason.RESUMED, message)


def _suspended_message(pods: int) -> str:
    if pods == 0:
        return "No pods are running; set runPolicy.suspend: false to resume."
    if pods == 1:
        return "1 pod is saving a checkpoint and terminating."
    return f"{pods} pods are saving a checkpoint and terminating."
