"""Which pods of the group are missing: they neither run nor are about to, so that an elastic job may go on without them."""

from __future__ import annotations

from finetune_operator.api.conditions import format_timestamp
from finetune_operator.reconcile.completion import has_succeeded
from finetune_operator.reconcile.failed_pods import current_pod_name
from finetune_operator.reconcile.group import group_size
from finetune_operator.reconcile.node_loss import LostPod, lost_pods
from finetune_operator.reconcile.observed_pod import Pod
from finetune_operator.reconcile.obstacles import is_paused, pod_obstacle
from finetune_operator.reconcile.plan import PlanBuilder


def missing_pods(plan: PlanBuilder) -> dict[int, str]:
    """A sentence with the cause for each node of the group whose pod is missing, by its index.

    None is missing while the creation of pods pauses after a failure: the failure policy bounds those.
    """
    if is_paused(plan):
        return {}
    size, counted = group_size(plan), plan.counted_pods
    lost = {item.pod.uid: item for item in lost_pods(plan) if item.contact != "Responding"}
    present: set[int] = set()
    causes: dict[int, str] = {}
    for pod in plan.pods:
        if pod.index >= size:
            continue
        if has_succeeded(pod) or _is_replaced_by_resize(pod, size, lost):
            present.add(pod.index)
        elif not (pod.uid in counted or pod.is_being_deleted or pod.is_finished):
            cause = _cause(plan, pod, lost)
            if cause is None:
                present.add(pod.index)
            else:
                causes[pod.index] = cause
    return {index: causes.get(index) or _no_pod(plan, index) for index in range(size) if index not in present}


def _is_replaced_by_resize(pod: Pod, size: int, lost: dict[str, LostPod]) -> bool:
    return pod.index == 0 and pod.is_being_deleted and pod.nodes not in (0, size) and pod.uid not in lost


def _cause(plan: PlanBuilder, pod: Pod, lost: dict[str, LostPod]) -> str | None:
    if pod.uid in lost:
        return f"Node {pod.node} of pod {pod.name} is not ready since {format_timestamp(lost[pod.uid].since)}."
    obstacle = pod_obstacle(plan, pod)
    if obstacle is not None:
        return obstacle.message
    return None if pod.node else f"Pod {pod.name} is not scheduled."


def _no_pod(plan: PlanBuilder, index: int) -> str:
    if plan.observed.create_error is not None:
        return plan.observed.create_error.message
    return f"Pod {current_pod_name(plan, index)} does not exist."
