"""runPolicy.keepFailedPods: the newest failed pod of each node is kept for its log while its replacement runs.

A kept pod is finished, so it holds no resources, is in no EndpointSlice and has no DNS record. Pods of a node alternate between
two names: the status says which of them a kept pod occupies, and the other one is that of the current pod.
"""

from __future__ import annotations

from finetune_operator import names
from finetune_operator.reconcile.observed_pod import Pod
from finetune_operator.reconcile.plan import DeletePod, PlanBuilder


def has_alternate_name(plan: PlanBuilder, index: int) -> bool:
    """Whether the current pod of a node has the alternate name, because a kept pod occupies the other one."""
    return names.pod_name(plan.observed.name, index) in plan.status.retained_pods


def current_pod_name(plan: PlanBuilder, index: int) -> str:
    """Name of the current pod of a node, or of the one to create."""
    return names.pod_name(plan.observed.name, index, is_alternate=has_alternate_name(plan, index))


def retain_or_delete(plan: PlanBuilder, *pods: Pod) -> None:
    """Keep counted pods for their logs as runPolicy.keepFailedPods says; the others are deleted.

    A pod whose phase is not Failed is always deleted: it holds resources and a DNS record, even if its trainer has failed.
    """
    keeps_failed = plan.job.spec.run_policy.keep_failed_pods != "Never"
    for pod in pods:
        is_current = pod.name == current_pod_name(plan, pod.index)
        if keeps_failed and is_current and pod.phase == "Failed" and not pod.is_being_deleted:
            _retain(plan, pod)
        else:
            plan.mark_for_deletion(pod)


def delete_retained(plan: PlanBuilder) -> None:
    """Delete all kept pods. Their names stay in the status, so that no operator with an older status creates them again."""
    for pod in plan.observed.retained_pods:
        if not pod.is_being_deleted:
            plan.add_action(DeletePod(pod.name, pod.uid))


def _retain(plan: PlanBuilder, pod: Pod) -> None:
    """Keep a pod in place of the one of the same node that failed before it, whose name the replacement gets."""
    node_names = names.pod_names(plan.observed.name, pod.index)
    others = [name for name in plan.status.retained_pods if name not in node_names]
    plan.mark_for_deletion(*(previous for previous in plan.observed.retained_pods if previous.index == pod.index))
    plan.update_status(retained_pods=sorted([*others, pod.name]))
