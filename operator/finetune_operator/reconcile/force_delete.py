"""Forced deletion: a lost node cannot confirm that a pod has terminated, so after a while the pod object is removed."""

from __future__ import annotations

from datetime import timedelta

from finetune_operator.api.conditions import ConditionReason
from finetune_operator.reconcile.plan import DeletePod, PlanBuilder


def force_delete(plan: PlanBuilder) -> bool:
    """Free the names of pods that are still terminating some time after their grace period.

    If such a pod still runs, its checkpoints do no harm: they carry the number of an earlier attempt and are rejected.
    """
    for pod in plan.observed.pods:
        if pod.deletion_deadline is None:
            continue
        if plan.requeue_at(pod.deletion_deadline + timedelta(seconds=plan.timings.force_delete_after)):
            plan.add_action(DeletePod(pod.name, pod.uid, force=True))
            plan.emit_event(
                "Warning",
                ConditionReason.POD_FORCE_DELETED,
                f"Pod {pod.name} did not terminate within its grace period on node {pod.node}; its deletion is forced.",
            )
    return False
