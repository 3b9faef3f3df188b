"""Stops the pods of a job that goes on later: they save a checkpoint, and their end counts as no failure."""

from __future__ import annotations

from finetune_operator.reconcile.group import reset_size, set_stopping_pods
from finetune_operator.reconcile.plan import PlanBuilder
from finetune_operator.reconcile.pod_failure import parse_outcome
from finetune_operator.reconcile.progress import record_outcome


def stop_pods(plan: PlanBuilder) -> None:
    """Delete all pods, record the checkpoint that the first one saved, and reset what belongs to one start of the job."""
    plan.mark_for_deletion(*plan.observed.pods)
    for pod in plan.observed.pods:
        outcome = parse_outcome(pod)
        if pod.index == 0 and outcome is not None:
            record_outcome(plan, outcome)
    plan.update_status(start_time=None, eta=None, pending=None)
    set_stopping_pods(plan)
    reset_size(plan)


def reset_backoff(plan: PlanBuilder) -> None:
    """Start without a back-off delay: the restarts before a stop say nothing about the time after it."""
    if plan.status.restarts.consecutive:
        plan.update_status(restarts=plan.status.restarts.model_copy(update={"consecutive": 0}))


def describe_stopping(pods: int) -> str:
    """A sentence about the pods that are still stopping."""
    if pods == 1:
        return "1 pod is saving a checkpoint and terminating."
    return f"{pods} pods are saving a checkpoint and terminating."
