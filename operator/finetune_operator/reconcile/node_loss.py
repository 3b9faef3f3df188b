"""Lost nodes: names a node that Kubernetes does not hear from any more, and replaces its pods after a while.

Kubernetes cannot tell a dead node from a dead kubelet or a cut network, and the containers may go on. So a pod is replaced only
if it does not answer the operator either, and only if some node could run its replacement. A pod that still runs somewhere does
no harm after that: its checkpoints carry the number of an earlier attempt and are rejected.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from finetune_operator.api.conditions import ConditionReason, ConditionType, find_condition, format_timestamp
from finetune_operator.reconcile.group import is_member
from finetune_operator.reconcile.observed_pod import Pod
from finetune_operator.reconcile.plan import PlanBuilder
from finetune_operator.reconcile.pod_failure import DEFAULT_VERDICTS, PodFailure

Contact = Literal["Responding", "Silent", "Unknown"]


@dataclass(frozen=True, slots=True)
class LostPod:
    """A pod on a node that is not ready since `since`, and whether it responds to the operator all the same."""

    pod: Pod
    since: datetime
    contact: Contact


def lost_pods(plan: PlanBuilder) -> list[LostPod]:
    """The pods on lost nodes that are not finished."""
    result = []
    for pod in plan.observed.pods:
        since = _lost_since(plan, pod)
        if since is not None and not pod.is_finished:
            result.append(LostPod(pod, since, _contact(plan, pod)))
    return result


def must_replace(plan: PlanBuilder, lost: LostPod) -> bool:
    """Whether a lost pod is replaced now. If not, the job is reconciled again in time."""
    if not plan.requeue_at(_deadline(plan, lost)):
        return False
    nodes = plan.observed.nodes
    returned = nodes is not None and lost.pod.node in nodes.ready
    if lost.contact == "Silent" and not returned and _has_other_node(plan):
        return True
    plan.requeue_after(plan.timings.recheck_interval)
    return False


def pods_to_replace(plan: PlanBuilder) -> list[LostPod]:
    """The lost pods of the group that are replaced now and are not counted yet."""
    uncounted = [item for item in _lost_members(plan) if not item.pod.is_being_deleted]
    return [item for item in uncounted if must_replace(plan, item)]


def classify_lost(lost: LostPod) -> PodFailure:
    """The disruption of a lost pod that is replaced."""
    pod, reason = lost.pod, ConditionReason.NODE_LOST
    message = f"node {pod.node} is not ready since {format_timestamp(lost.since)}, and the pod does not respond"
    return PodFailure(pod, reason, message, pod.index, DEFAULT_VERDICTS[reason])


def report_lost_nodes(plan: PlanBuilder) -> bool:
    """Name lost nodes and their pods in the conditions, until the pods are replaced."""
    _watch_unready_pods(plan)
    lost = _lost_members(plan)
    if not lost:
        return False
    plan.requeue_after(plan.timings.recheck_interval)
    gone = [item for item in lost if item.contact != "Responding"]
    reason = ConditionReason.NODE_LOST if gone else ConditionReason.KUBELET_SILENT
    message = " ".join(_describe(plan, item) for item in gone or lost)
    previous = find_condition(plan.observed.status.conditions, ConditionType.PODS_READY)
    if previous is None or previous.reason != reason:
        plan.emit_event("Warning", reason, message)
    plan.set_condition(ConditionType.PODS_READY, False, reason, f"{plan.status.workers.summary} pods are ready. {message}")
    if is_waiting_for_node(plan) and plan.status.phase == "Running":
        plan.set_condition(ConditionType.RUNNING, False, reason, "Training is waiting for the lost node or a replacement pod.")
    return False


def is_waiting_for_node(plan: PlanBuilder) -> bool:
    """Whether a pod is lost and does not respond, so that the last reported activity of the run is out of date."""
    return any(lost.contact == "Silent" for lost in lost_pods(plan) if is_member(plan, lost.pod))


def _lost_members(plan: PlanBuilder) -> list[LostPod]:
    """The lost pods of the group that are not counted yet."""
    counted = plan.counted_pods
    return [item for item in lost_pods(plan) if item.pod.uid not in counted and is_member(plan, item.pod)]


def _lost_since(plan: PlanBuilder, pod: Pod) -> datetime | None:
    """When the node of a pod was reported as lost; None if it was not.

    Kubernetes marks only pods that were ready before. Those that were not are on a lost node if the node itself is not ready.
    """
    nodes = plan.observed.nodes
    not_ready_since = nodes.not_ready_since.get(pod.node) if nodes is not None and pod.node else None
    return pod.node_lost_since or not_ready_since


def _contact(plan: PlanBuilder, pod: Pod) -> Contact:
    if pod.uid in plan.observed.responding_pods:
        return "Responding"
    if pod.uid in plan.observed.silent_pods or not pod.running or not pod.address:
        return "Silent"
    return "Unknown"


def _deadline(plan: PlanBuilder, lost: LostPod) -> datetime:
    job = plan.observed.job
    seconds: float | None = job.spec.run_policy.node_lost_seconds if job is not None else None
    return lost.since + timedelta(seconds=plan.timings.node_lost_seconds if seconds is None else seconds)


def _has_other_node(plan: PlanBuilder) -> bool:
    """Whether a node is ready that could run a pod. Without one, the nodes are probably fine and cut off from Kubernetes."""
    nodes = plan.observed.nodes
    return nodes is None or nodes.has_ready_worker


def _watch_unready_pods(plan: PlanBuilder) -> None:
    """Reconcile again while a pod on a node is not ready, because no watch reports that its node is lost."""
    if any(pod.node and not pod.ready and not pod.is_finished for pod in plan.observed.pods):
        plan.requeue_after(plan.timings.node_check_interval)


def _describe(plan: PlanBuilder, lost: LostPod) -> str:
    pod, since = lost.pod, format_timestamp(lost.since)
    if lost.contact == "Responding":
        return (
            f"The kubelet of node {pod.node} is silent since {since}, but pod {pod.name} still responds and is left alone: "
            "check the kubelet."
        )
    state = f"Node {pod.node} of pod {pod.name} is not ready since {since}"
    if not _has_other_node(plan):
        return f"{state}, and no other node is ready: the pod is replaced when one is, unless its node returns."
    return f"{state}: the pod is replaced at {format_timestamp(_deadline(plan, lost))} unless the node returns."
