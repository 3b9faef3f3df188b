"""Completion: a job is complete when its first pod has completed the run."""

from __future__ import annotations

from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile.cleanup import finish
from finetune_operator.reconcile.observed_pod import Pod
from finetune_operator.reconcile.plan import PlanBuilder
from finetune_operator.reconcile.pod_failure import parse_outcome
from finetune_operator.reconcile.progress import record_outcome
from finetune_trainer.protocol.outcome import Outcome, Reason


def has_succeeded(pod: Pod) -> bool:
    """Whether the trainer container of a pod reported that its part of the run is complete.

    A sidecar may still run or have failed, and the pod may have been killed after the report. Exit code 0 alone proves nothing:
    any other program in the image of a user ends with it.
    """
    outcome = parse_outcome(pod)
    return outcome is not None and outcome.reason is Reason.COMPLETE


def complete(plan: PlanBuilder) -> bool:
    """Finish the job with the outcome of its first pod. True if that pod has succeeded."""
    pod = _succeeded_first_pod(plan)
    if pod is None:
        return False
    outcome = parse_outcome(pod) or Outcome(reason=Reason.COMPLETE)
    model = outcome.model or plan.status.model
    message = f"The model is stored at {model}." if model else "The run is complete."
    record_outcome(plan, outcome)
    metrics = {name: round(value, 4) for name, value in outcome.metrics.items()}
    plan.update_status(metrics=metrics, model=model, failure=None)
    finish(plan, ConditionType.COMPLETE, Reason.COMPLETE, message)
    return True


def _succeeded_first_pod(plan: PlanBuilder) -> Pod | None:
    for pod in plan.observed.pods:
        if pod.index == 0 and has_succeeded(pod):
            return pod
    return None
