"""A run is complete when pod 0 says so."""

from __future__ import annotations

from finetune_operator.api.conditions import ConditionType, is_true
from finetune_operator.reconcile.cleanup import finish
from finetune_operator.reconcile.observed_state import Pod
from finetune_operator.reconcile.plan import PlanBuilder
from finetune_operator.reconcile.pod_failure import outcome_of
from finetune_operator.reconcile.progress import record_outcome
from finetune_trainer.protocol.outcome import Outcome, Reason


def succeeded(pod: Pod) -> bool:
    """Whether a pod finished its part: also one that was killed after it had said so."""
    if pod.phase == "Succeeded":
        return True
    outcome = outcome_of(pod)
    return outcome is not None and outcome.reason is Reason.COMPLETE


def complete(draft: PlanBuilder) -> bool:
    """End the job with what its first pod left as last word."""
    seen = draft.seen
    first = next((pod for pod in seen.pods if pod.index == 0 and succeeded(pod)), None)
    if first is None:
        return False
    outcome = outcome_of(first) or Outcome(reason=Reason.COMPLETE)
    model = outcome.model or draft.status.model
    message = f"The model is stored at {model}." if model else "The run finished."
    record_outcome(draft, outcome)
    draft.update(metrics={name: round(value, 4) for name, value in outcome.metrics.items()}, model=model, failure=None)
    if is_true(draft.status.conditions, ConditionType.RESTARTING):
        draft.condition(ConditionType.RESTARTING, False, Reason.COMPLETE, "The run finished.")
    finish(draft, ConditionType.COMPLETE, Reason.COMPLETE, message)
    return True
