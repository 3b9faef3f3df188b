"""runPolicy.suspend: true frees the pods after a checkpoint, false starts them again."""

from __future__ import annotations

from finetune_operator.api import WorkersStatus
from finetune_operator.api.conditions import ConditionReason, ConditionType, is_true
from finetune_operator.reconcile.observed_state import ObservedState
from finetune_operator.reconcile.plan import PlanBuilder
from finetune_operator.reconcile.pod_failure import outcome_of
from finetune_operator.reconcile.progress import record_outcome


def suspend(draft: PlanBuilder) -> bool:
    """Stop or let go on."""
    seen = draft.seen
    assert seen.job is not None
    if not seen.job.spec.run_policy.suspend:
        _resume(draft)
        return False
    if draft.status.phase != "Suspended":
        draft.note("Normal", ConditionReason.SUSPENDED, "The job is suspended: its pods store a checkpoint and stop.")
    draft.mark_for_deletion(*seen.pods)
    for outcome in (outcome_of(pod) for pod in seen.pods if pod.index == 0):
        if outcome is not None:  # what it stored on its way out
            record_outcome(draft, outcome)
    nodes = seen.job.spec.workers.nodes
    draft.update(phase="Suspended", start_time=None, eta=None, workers=_nobody(nodes))
    draft.condition(ConditionType.SUSPENDED, True, ConditionReason.SUSPENDED, _message(seen))
    draft.condition(ConditionType.PODS_READY, False, ConditionReason.SUSPENDED, "A suspended job has no pods.")
    draft.condition(ConditionType.RUNNING, False, ConditionReason.SUSPENDED, "The job is suspended.")
    if is_true(draft.status.conditions, ConditionType.RESTARTING):
        draft.condition(ConditionType.RESTARTING, False, ConditionReason.SUSPENDED, "The job is suspended.")
    return True


def _resume(draft: PlanBuilder) -> None:
    if draft.status.phase != "Suspended":
        return
    restarts = draft.status.restarts.model_copy(update={"consecutive": 0})
    draft.update(phase="Pending", restarts=restarts)
    draft.condition(ConditionType.SUSPENDED, False, ConditionReason.RESUMED, "The job goes on from its newest checkpoint.")
    draft.note("Normal", ConditionReason.RESUMED, "The job is resumed and goes on from its newest checkpoint.")


def _message(seen: ObservedState) -> str:
    if stopping := len(seen.pods):
        return f"{stopping} pod{'s' * (stopping != 1)} of this job store a checkpoint and stop."
    return "No pods are running; set runPolicy.suspend: false to go on."


def _nobody(nodes: int) -> WorkersStatus:
    return WorkersStatus(ready=0, desired=nodes, summary=f"0/{nodes}")
