"""runPolicy.preflight: a node that failed the check gets no pod of the job for a while.

Avoiding must not stop the job: when a pod cannot be scheduled without the avoided nodes, they become a last resort, which the
scheduler uses if no other node has room. The check then decides again, and `maxDisruptionsPerHour` ends a loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from finetune_operator.api.conditions import ConditionReason, format_timestamp, parse_timestamp
from finetune_operator.api.status import MAX_AVOIDED_NODES, AvoidedNode
from finetune_operator.reconcile.observed_pod import Pod
from finetune_operator.reconcile.plan import PlanBuilder
from finetune_operator.reconcile.pod_failure import PodFailure
from finetune_trainer.protocol.outcome import Reason

LAST_RESORT_AFTER = timedelta(seconds=120)
"""How long a pod may be unschedulable before avoided nodes are allowed again; an autoscaler may add a node in that time."""


def avoid_failed_nodes(plan: PlanBuilder, pod_failures: Iterable[PodFailure]) -> None:
    """Record the nodes of the pods that failed the preflight check, with an event for each."""
    if not _seconds(plan):
        return
    for pod_failure in pod_failures:
        if pod_failure.reason == Reason.PREFLIGHT_FAILED and pod_failure.pod is not None and pod_failure.pod.node:
            _avoid(plan, pod_failure.pod.node, pod_failure.message)


def update_avoided_nodes(plan: PlanBuilder) -> bool:
    """Forget the nodes that were avoided long enough, and allow the others where a pod cannot be scheduled otherwise."""
    avoided = plan.status.avoided_nodes
    kept = [node for node in avoided if not plan.requeue_at(_end(plan, node))]
    if blocked := _blocked_pods(plan, kept):
        kept = _allow(plan, kept, blocked)
    if kept != avoided:
        plan.update_status(avoided_nodes=kept)
    return False


def avoided_names(plan: PlanBuilder, *, last_resort: bool) -> tuple[str, ...]:
    """The names of the nodes that pods must avoid, or with `last_resort` of those that they only prefer to avoid."""
    return tuple(node.name for node in plan.status.avoided_nodes if node.is_last_resort == last_resort)


def _seconds(plan: PlanBuilder) -> int:
    preflight = plan.job.spec.run_policy.preflight
    return preflight.avoid_nodes_seconds if preflight is not None else 0


def _end(plan: PlanBuilder, node: AvoidedNode) -> datetime:
    return parse_timestamp(node.time) + timedelta(seconds=_seconds(plan))


def _avoid(plan: PlanBuilder, name: str, message: str) -> None:
    others = [node for node in plan.status.avoided_nodes if node.name != name]
    # A last resort that fails again stays one: avoided altogether, it would only make a pod wait once more.
    is_last_resort = any(node.name == name and node.is_last_resort for node in plan.status.avoided_nodes)
    node = AvoidedNode(name=name, time=format_timestamp(plan.observed.now), message=message, is_last_resort=is_last_resort)
    plan.update_status(avoided_nodes=[*others, node][-MAX_AVOIDED_NODES:])
    end = format_timestamp(_end(plan, node))
    plan.emit_event("Warning", ConditionReason.NODE_AVOIDED, f"Node {name} is avoided until {end}: {message}.")


def _blocked_pods(plan: PlanBuilder, avoided: list[AvoidedNode]) -> list[Pod]:
    """The pods that were created to avoid nodes and have been unschedulable for too long."""
    begins = [parse_timestamp(node.time) for node in avoided if not node.is_last_resort]
    if not begins:
        return []
    return [
        pod
        for pod in plan.pods
        if pod.waiting is not None
        and pod.waiting.reason == "Unschedulable"
        and not pod.is_being_deleted
        and pod.created >= min(begins)
        and plan.requeue_at(pod.created + LAST_RESORT_AFTER)
    ]


def _allow(plan: PlanBuilder, avoided: list[AvoidedNode], blocked: list[Pod]) -> list[AvoidedNode]:
    """Make the avoided nodes a last resort, and replace the blocked pods, whose affinity cannot change."""
    plan.mark_for_deletion(*blocked)
    names = ", ".join(node.name for node in avoided if not node.is_last_resort)
    plan.emit_event(
        "Warning",
        ConditionReason.AVOIDED_NODES_NEEDED,
        f"Pod {blocked[0].name} cannot be scheduled without {names}, which failed the preflight check: the pod is created "
        "again and may use them if no other node has room.",
    )
    return [node.model_copy(update={"is_last_resort": True}) for node in avoided]
