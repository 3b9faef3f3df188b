"""Forced deletion: a lost node cannot confirm that a pod has terminated, so after a while the pod object is removed."""

from __future__ import annotations

from datetime import timedelta

from finetune_operator.api.conditions import ConditionReason
from finetune_operator.reconcile import node_loss
from finetune_operator.reconcile.plan import DeletePod, PlanBuilder


def force_delete(plan: PlanBuilder) -> bool:
    """Free the names of pods that are still terminating some time after their grace period, or whose node is lost.

    If such a pod still runs, its checkpoints do no harm: they carry the number of an earlier attempt and are rejected.
    """
    lost = [item for item in node_loss.lost_pods(plan) if item.pod.is_being_deleted]
    lost_uids = {item.pod.uid for item in lost if node_loss.must_replace(plan, item)}
    for pod in plan.observed.pods:
        if pod.deletion_deadline is None:
            continue
        if pod.uid in lost_uids:
            cause = f"cannot terminate, because node {pod.node} is lost"
        elif plan.requeue_at(pod.deletion_deadline + timedelta(seconds=plan.timings.force_delete_after)):
            cause = f"did not terminate within its grace period on node {pod.node}"
        else:
            continue
        plan.add_action(DeletePod(pod.name, pod.uid, force=True))
        plan.emit_event("Warning", ConditionReason.POD_FORCE_DELETED, f"Pod {pod.name} {cause}; its deletion is forced.")
    return False
