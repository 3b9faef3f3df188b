"""A pod whose node is gone cannot confirm its own end: after a while it is deleted without asking the node."""

from __future__ import annotations

from datetime import timedelta

from finetune_operator.api.conditions import ConditionReason
from finetune_operator.reconcile.plan import DeletePod, PlanBuilder


def force_delete(draft: PlanBuilder) -> bool:
    """Free the names of pods that should be gone. Should one still run, its late checkpoints are fenced off by attempt."""
    for pod in draft.seen.pods:
        if pod.deletion_deadline is not None and draft.requeue_at(
            pod.deletion_deadline + timedelta(seconds=draft.limits.stuck)
        ):
            draft.act(DeletePod(pod.name, pod.uid, force=True))
            draft.note(
                "Warning",
                ConditionReason.POD_STUCK,
                f"Pod {pod.name} did not end in time on node {pod.node}; it is removed by force.",
            )
    return False
