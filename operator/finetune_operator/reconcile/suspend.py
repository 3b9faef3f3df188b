"""runPolicy.suspend: true frees the pods after a checkpoint, false starts them again."""

from __future__ import annotations

from finetune_operator.api import WorkersStatus
from finetune_operator.conditions import Type, Why, is_true
from finetune_operator.reconcile.incident import outcome_of
from finetune_operator.reconcile.observed import Seen
from finetune_operator.reconcile.plan import Draft
from finetune_operator.reconcile.progress import keep_last_word


def suspend(draft: Draft) -> bool:
    """Stop or let go on."""
    seen = draft.seen
    assert seen.job is not None
    if not seen.job.spec.run_policy.suspend:
        _resume(draft)
        return False
    if draft.status.phase != "Suspended":
        draft.note("Normal", Why.SUSPENDED, "The job is suspended: its pods store a checkpoint and stop.")
    draft.dismiss(*seen.pods)
    for outcome in (outcome_of(pod) for pod in seen.pods if pod.index == 0):
        if outcome is not None:  # what it stored on its way out
            keep_last_word(draft, outcome)
    nodes = seen.job.spec.workers.nodes
    draft.update(phase="Suspended", start_time=None, eta=None, workers=_nobody(nodes))
    draft.condition(Type.SUSPENDED, True, Why.SUSPENDED, _message(seen))
    draft.condition(Type.PODS_READY, False, Why.SUSPENDED, "A suspended job has no pods.")
    draft.condition(Type.RUNNING, False, Why.SUSPENDED, "The job is suspended.")
    if is_true(draft.status.conditions, Type.RESTARTING):
        draft.condition(Type.RESTARTING, False, Why.SUSPENDED, "The job is suspended.")
    return True


def _resume(draft: Draft) -> None:
    if draft.status.phase != "Suspended":
        return
    restarts = draft.status.restarts.model_copy(update={"in_a_row": 0})
    draft.update(phase="Pending", restarts=restarts)
    draft.condition(Type.SUSPENDED, False, Why.RESUMED, "The job goes on from its newest checkpoint.")
    draft.note("Normal", Why.RESUMED, "The job is resumed and goes on from its newest checkpoint.")


def _message(seen: Seen) -> str:
    if stopping := len(seen.pods):
        return f"{stopping} pod{'s' * (stopping != 1)} of this job store a checkpoint and stop."
    return "No pods are running; set runPolicy.suspend: false to go on."


def _nobody(nodes: int) -> WorkersStatus:
    return WorkersStatus(ready=0, desired=nodes, summary=f"0/{nodes}")
