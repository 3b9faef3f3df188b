"""runPolicy.keepFailedPods: the newest failed pod of each node is kept for its log while its replacement runs.

A kept pod is finished, so it holds no resources, is in no EndpointSlice and has no DNS record. Pods of a node alternate between
two names: the status says which of them a kept pod occupies, and the other one is that of the current pod.
"""

from __future__ import annotations

from finetune_operator import names
from finetune_operator.reconcile.observed_pod import Pod
from finetune_operator.reconcile.observed_state import is_retained
from finetune_operator.reconcile.plan import DeletePod, PlanBuilder


def has_alternate_name(plan: PlanBuilder, index: int) -> bool:
    """Whether the current pod of a node has the alternate name, because a kept pod occupies the other one."""
    return names.pod_name(plan.observed.name, index) in plan.status.retained_pods


def current_pod_name(plan: PlanBuilder, index: int) -> str:
    """Name of the current pod of a node, or of the one to create."""
    return names.pod_name(plan.observed.name, index, is_alternate=has_alternate_name(plan, index))


def retain_or_delete(plan: PlanBuilder, *pods: Pod) -> None:
    """Keep counted pods for their logs as runPolicy.keepFailedPods says; the others are deleted.

    The trainer container terminates a moment before the phase of its pod becomes Failed; until then the pod holds resources and
    a DNS record, and is replaced only afterwards. A pod whose sidecar goes on running is deleted.
    """
    for pod in pods:
        plan.needs_consistent_read = True
        if not _is_kept(plan, pod):
            plan.mark_for_deletion(pod)
        elif pod.phase == "Failed":
            _retain(plan, pod)
        else:
            plan.mark_as_counted(pod)


def retain_stopped(plan: PlanBuilder) -> None:
    """Keep the counted pods that have stopped since they were counted."""
    for pod in plan.pods:
        if pod.phase == "Failed" and _waits_to_be_kept(plan, pod):
            _retain(plan, pod)


def is_stopping(plan: PlanBuilder, pod: Pod) -> bool:
    """Whether a counted pod is to be kept as soon as it has stopped."""
    return pod.phase != "Failed" and _waits_to_be_kept(plan, pod)


def _waits_to_be_kept(plan: PlanBuilder, pod: Pod) -> bool:
    if pod.uid not in plan.counted_pods or not _is_kept(plan, pod):
        return False
    # A counted pod that is older than the kept one of its node was kept before that one, and is about to be deleted.
    kept = [other for other in plan.all_pods if other.index == pod.index and is_retained(plan.status, other)]
    return all(other.created < pod.created for other in kept)


def _is_kept(plan: PlanBuilder, pod: Pod) -> bool:
    if plan.job.spec.run_policy.keep_failed_pods == "Never" or pod.is_being_deleted:
        return False
    if pod.name != current_pod_name(plan, pod.index):
        return False
    has_failed = pod.terminated is not None and pod.terminated.exit_code != 0
    return pod.phase == "Failed" or (pod.phase != "Succeeded" and has_failed and not pod.has_unfinished_sidecar)


def delete_retained(plan: PlanBuilder) -> None:
    """Delete all kept pods. Their names stay in the status, so that no operator with an older status creates them again."""
    for pod in plan.observed.retained_pods:
        if not pod.is_being_deleted:
            plan.add_action(DeletePod(pod.name, pod.uid))


def delete_superseded(plan: PlanBuilder) -> None:
    """Of the stopped pods of each node, keep only the newest, whose log explains the end of the job."""
    # Of two pods of the same second the kept one is the newer: it has replaced the other one.
    stopped = sorted(
        (pod for pod in plan.all_pods if pod.has_stopped), key=lambda pod: (pod.created, is_retained(plan.status, pod))
    )
    newest = {pod.index: pod.uid for pod in stopped}
    for pod in stopped:
        if pod.uid != newest[pod.index] and not pod.is_being_deleted:
            plan.add_action(DeletePod(pod.name, pod.uid))


def _retain(plan: PlanBuilder, pod: Pod) -> None:
    """Keep a pod in place of the one of the same node that failed before it, whose name the replacement gets."""
    node_names = names.pod_names(plan.observed.name, pod.index)
    others = [name for name in plan.status.retained_pods if name not in node_names]
    plan.mark_for_deletion(*(previous for previous in plan.observed.retained_pods if previous.index == pod.index))
    plan.update_status(retained_pods=sorted([*others, pod.name]))
