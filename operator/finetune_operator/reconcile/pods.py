"""The pods of a job: creates missing pods, one for each node, and reports how many are ready."""

from __future__ import annotations

from finetune_operator.api.conditions import ConditionReason, ConditionType, find_condition, format_timestamp
from finetune_operator.reconcile.completion import has_succeeded
from finetune_operator.reconcile.elastic import shrink_time
from finetune_operator.reconcile.failed_pods import (
    current_pod_name,
    delete_retained,
    has_alternate_name,
    is_stopping,
    retain_stopped,
)
from finetune_operator.reconcile.gang_start import release_deadline
from finetune_operator.reconcile.group import group_size, set_ready_pods
from finetune_operator.reconcile.growth import pod_limit
from finetune_operator.reconcile.node_avoidance import avoided_names
from finetune_operator.reconcile.observed_pod import Pod, ReasonMessage
from finetune_operator.reconcile.obstacles import create_obstacle, missing_indices, start_obstacle
from finetune_operator.reconcile.plan import CreateJobResources, CreatePod, PlanBuilder


def ensure_pods(plan: PlanBuilder) -> bool:
    """Create missing pods, delete the pods that were marked for deletion, and update the PodsReady condition."""
    retain_stopped(plan)
    pods = plan.pods
    missing = missing_indices(plan)
    counted = plan.counted_pods
    limit = pod_limit(plan)
    surplus = [pod for pod in pods if pod.uid not in counted and _is_surplus(plan, pod, limit)]
    if surplus:
        plan.needs_consistent_read = True
    leaving = [pod for pod in pods if pod.uid in counted and not is_stopping(plan, pod)] + surplus
    if missing or leaving:
        # A replacement would wait forever for a peer that has already succeeded, so that peer is replaced too.
        leaving += [pod for pod in pods if pod not in leaving and has_succeeded(pod)]
    plan.mark_for_deletion(*leaving)
    obstacle = create_obstacle(plan, missing)
    if missing and obstacle is None:
        _create_pods(plan, missing)
    if obstacle is not None and obstacle.reason == ConditionReason.QUOTA_EXCEEDED and "count/pods" in obstacle.message:
        delete_retained(plan)  # this quota includes finished pods, unlike that of pods
    leaving_uids = {pod.uid for pod in leaving}
    size = group_size(plan)
    staying = [pod for pod in pods if pod.uid not in leaving_uids and pod.index < size]
    _update_ready_condition(plan, staying, obstacle)
    _create_pods_for_growth(plan, staying)
    return False


def _is_surplus(plan: PlanBuilder, pod: Pod, limit: int) -> bool:
    """Whether the job does not need a pod: another one is the current pod of its node, or the run uses fewer nodes.

    The first can only happen if someone deletes a kept pod while an operator with an older status creates pods.
    """
    return pod.index >= limit or pod.name != current_pod_name(plan, pod.index)


def _create_pods(plan: PlanBuilder, missing: list[int]) -> None:
    has_started = plan.status.start_time is not None
    if not has_started:
        plan.update_status(start_time=format_timestamp(plan.observed.now))
    plan.add_action(CreateJobResources(may_exist=has_started))
    peer = _peer(plan)
    avoided, last_resort = avoided_names(plan, last_resort=False), avoided_names(plan, last_resort=True)
    for index in missing:
        is_alternate = has_alternate_name(plan, index)
        plan.add_action(CreatePod(index, group_size(plan), is_alternate, peer, avoided, last_resort))


def _peer(plan: PlanBuilder) -> str:
    """Name of the first pod that the new ones will meet, or "" if there is none.

    The default image and the defaults of the document may have changed since it was created, with the operator or with a
    profile, and ranks of two versions of the trainer must not run together.
    """
    peers = [pod for pod in plan.pods if not pod.is_finished and not pod.is_being_deleted]
    return min(peers, key=lambda pod: pod.index).name if peers else ""


def _create_pods_for_growth(plan: PlanBuilder, members: list[Pod]) -> None:
    """Create the pods for further nodes of an elastic job while all pods of the group are ready."""
    size, existing = group_size(plan), {pod.index for pod in plan.pods}
    if len([pod for pod in members if _is_ready(pod)]) < size:
        return
    further = [index for index in range(size, pod_limit(plan)) if index not in existing]
    if further and create_obstacle(plan, further) is None:
        _create_pods(plan, further)


def _update_ready_condition(plan: PlanBuilder, pods: list[Pod], obstacle: ReasonMessage | None) -> None:
    nodes = group_size(plan)
    ready = len([pod for pod in pods if _is_ready(pod)])
    set_ready_pods(plan, ready)
    if ready == nodes:
        _mark_ready(plan)
        return
    counts = f"{ready} of {nodes} pods are ready"
    cause = obstacle or start_obstacle(plan)
    if cause is not None:
        reason, message = cause.reason, f"{counts}. {cause.message}"
    elif plan.status.phase == "Running":
        reason, message = ConditionReason.PODS_NOT_READY, f"{counts}; the others are restarting their ranks."
    else:
        reason, message = ConditionReason.PODS_STARTING, f"{counts}.{_initializing(pods)}"
    deadline, smaller = release_deadline(plan), shrink_time(plan)
    if smaller is not None:
        message += f" If it does not start by {smaller}, the run goes on with fewer nodes."
    elif deadline is not None:
        message += f" If it does not start by {deadline}, all pods of the job are deleted and created again later."
    plan.set_condition(ConditionType.PODS_READY, False, reason, message)


def _is_ready(pod: Pod) -> bool:
    return not pod.is_being_deleted and (pod.ready or has_succeeded(pod))


def _mark_ready(plan: PlanBuilder) -> None:
    plan.set_condition(ConditionType.PODS_READY, True, ConditionReason.PODS_READY, "All pods are ready.")
    if plan.status.pending is not None:
        plan.update_status(pending=None)
    if plan.status.phase == "Running":
        return
    plan.update_status(phase="Running")
    restarting = find_condition(plan.status.conditions, ConditionType.RESTARTING)
    if restarting is not None and restarting.status == "True":
        message = f"All pods are ready again. {restarting.message}"
        plan.set_condition(ConditionType.RESTARTING, False, ConditionReason.RECOVERED, message)


def _initializing(pods: list[Pod]) -> str:
    for pod in pods:
        if pod.initializing:
            return f" Pod {pod.name} runs its init container {pod.initializing}."
    return ""
