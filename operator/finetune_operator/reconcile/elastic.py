"""workers.minNodes: a run goes on with fewer nodes while some are missing, and with more when they are back or wanted.

A change of the number of nodes is a stop with a checkpoint and a start from it, never a change of a run that trains. Only the
first pod is replaced: its agent decides how many nodes the run has, and the agents of the other pods wait for it
(docs/concepts/rendezvous.md). So two sizes cannot run at once, and the other pods keep their places and their files.
"""

from __future__ import annotations

from datetime import timedelta

from finetune_operator.api.conditions import ConditionReason, ConditionType, format_timestamp, is_true, parse_timestamp
from finetune_operator.reconcile.group import group_size, grow_time, node_limit, update_elastic, wanted_nodes
from finetune_operator.reconcile.growth import Resize, growth, pod_limit
from finetune_operator.reconcile.missing_pods import missing_pods
from finetune_operator.reconcile.plan import PlanBuilder

CONSECUTIVE = timedelta(hours=1)  # between changes that count as consecutive
STOP_SECONDS = 15  # for pods whose ranks wait for a missing one, so that they have nothing to save


def adjust_size(plan: PlanBuilder) -> bool:
    """Change the number of nodes if it is time, and replace the first pod if it was created for another number."""
    grace_seconds = None
    if plan.job.spec.workers.min_nodes is not None:
        elastic = plan.status.elastic
        if elastic is None or elastic.nodes is None:
            update_elastic(plan, nodes=wanted_nodes(plan))
        resize = _next_resize(plan)
        if resize is not None:
            grace_seconds = None if resize.can_save else STOP_SECONDS
            _start_resize(plan, resize, grace_seconds)
        _report_size(plan)
    _replace_first_pod(plan, grace_seconds)
    return False


def shrink_time(plan: PlanBuilder) -> str | None:
    """When the run goes on with fewer nodes if no further pod is there by then; None if it does not."""
    elastic = plan.status.elastic
    if elastic is None or elastic.missing_since is None or _smaller_size(plan, len(missing_pods(plan))) is None:
        return None
    return format_timestamp(parse_timestamp(elastic.missing_since) + _shrink_after(plan))


def _next_resize(plan: PlanBuilder) -> Resize | None:
    missing, wanted = missing_pods(plan), wanted_nodes(plan)
    if wanted < group_size(plan):
        limit = node_limit(plan)
        message = limit.message if limit is not None else f"The job is to use {_count(wanted)}."
        return Resize(wanted, message, can_save=not missing)
    if not missing:
        update_elastic(plan, missing_since=None)
        return growth(plan)
    since = update_elastic(plan, bound_since=None).missing_since or format_timestamp(plan.observed.now)
    update_elastic(plan, missing_since=since)
    nodes = _smaller_size(plan, len(missing))
    if nodes is None or not plan.requeue_at(parse_timestamp(since) + _shrink_after(plan)):
        return None
    return Resize(nodes, next(iter(missing.values())), can_save=False)


def _smaller_size(plan: PlanBuilder, missing: int) -> int | None:
    """The largest number of nodes with which the run can go on without the missing ones."""
    if plan.job.spec.workers.min_nodes is None:
        return None
    present = group_size(plan) - missing
    return plan.job.spec.largest_size(present)


def _shrink_after(plan: PlanBuilder) -> timedelta:
    return timedelta(seconds=plan.job.spec.run_policy.elastic.shrink_after_seconds)


def _start_resize(plan: PlanBuilder, resize: Resize, grace_seconds: int | None) -> None:
    plan.needs_consistent_read = True
    before, now = group_size(plan), plan.observed.now
    elastic = update_elastic(plan, nodes=resize.nodes)
    consecutive, resizes = 1, elastic.resizes + 1
    if elastic.last_resize_time is not None and now - parse_timestamp(elastic.last_resize_time) <= CONSECUTIVE:
        consecutive = elastic.consecutive + 1
    update_elastic(
        plan,
        message=resize.message,
        resizes=resizes,
        consecutive=consecutive,
        last_resize_time=format_timestamp(now),
        grow_time=format_timestamp(grow_time(plan, consecutive, resizes)),
        missing_since=None,
        bound_since=None,
    )
    plan.mark_for_deletion(*(pod for pod in plan.pods if pod.index >= resize.nodes), grace_seconds=grace_seconds)
    message = f"The run goes on with {_count(resize.nodes)} instead of {before}. {resize.message}"
    plan.emit_event("Normal" if resize.can_save else "Warning", ConditionReason.RESIZING, message)
    if plan.status.phase == "Pending":
        return
    plan.update_status(phase="Restarting", eta=None)
    plan.set_condition(ConditionType.RESTARTING, True, ConditionReason.RESIZING, message)
    if is_true(plan.status.conditions, ConditionType.RUNNING):
        plan.set_condition(ConditionType.RUNNING, False, ConditionReason.RESIZING, message)


def _replace_first_pod(plan: PlanBuilder, grace_seconds: int | None) -> None:
    """Delete the first pod if it was created for another number of nodes; `ensure_pods` creates it again when it is gone."""
    size, counted = group_size(plan), plan.counted_pods
    for pod in plan.pods:
        if pod.index == 0 and pod.nodes not in (0, size) and pod.uid not in counted:
            plan.mark_for_deletion(pod, grace_seconds=grace_seconds)
            if plan.status.phase == "Running":  # the job was edited while it was suspended, which no operator observed
                plan.update_status(phase="Pending")


def _report_size(plan: PlanBuilder) -> None:
    size, wanted, elastic, limit = group_size(plan), wanted_nodes(plan), plan.status.elastic, node_limit(plan)
    message = f"The run uses {size} of {_count(plan.job.desired_nodes)}."
    if limit is not None:
        message += f" {limit.message}"
    if size >= wanted:
        if limit is not None:
            plan.set_condition(ConditionType.DEGRADED, True, limit.reason, message)
        elif is_true(plan.status.conditions, ConditionType.DEGRADED):
            message = f"The run uses all {_count(wanted)}."
            plan.set_condition(ConditionType.DEGRADED, False, ConditionReason.ALL_NODES, message)
        return
    if elastic is not None and elastic.message:
        message += f" {elastic.message}"
    if pod_limit(plan) > size:
        message += " It grows when pods for more nodes run."
    elif elastic is not None and elastic.grow_time is not None:
        message += f" Pods for more nodes are not created before {elastic.grow_time}."
    plan.set_condition(ConditionType.DEGRADED, True, ConditionReason.RUNNING_SMALLER, message)


def _count(nodes: int) -> str:
    return "1 node" if nodes == 1 else f"{nodes} nodes"
