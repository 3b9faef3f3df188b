"""How an elastic job that runs on fewer nodes than it wants finds out that it can grow.

The missing pods exist and wait to be scheduled, which holds no resources. A pod for a further node whose container runs waits
for the run; when enough of them do, the run is stopped with a checkpoint and goes on with them. Such a pod must neither compete
with a pod that the run needs nor hold resources for long in vain.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from finetune_operator.api.conditions import ConditionType, format_timestamp, is_true, parse_timestamp
from finetune_operator.reconcile.completion import has_succeeded
from finetune_operator.reconcile.group import group_size, grow_time, update_elastic, wanted_nodes
from finetune_operator.reconcile.missing_pods import missing_pods
from finetune_operator.reconcile.node_loss import lost_pods
from finetune_operator.reconcile.observed_pod import Pod
from finetune_operator.reconcile.plan import PlanBuilder


@dataclass(frozen=True, slots=True)
class Resize:
    """A change of the number of nodes. `can_save` is whether all ranks run, so that they can store a checkpoint first."""

    nodes: int
    message: str
    can_save: bool


def pod_limit(plan: PlanBuilder) -> int:
    """The number of pods that may exist: the group, and the pods for further nodes if the run may grow now."""
    sizes = _larger_sizes(plan)
    return sizes[-1] if sizes and _may_grow(plan) else group_size(plan)


def growth(plan: PlanBuilder) -> Resize | None:
    """The growth for which enough pods run, if any; pods that hold resources in vain are deleted after a while."""
    size, sizes = group_size(plan), _larger_sizes(plan)
    candidates = _candidates(plan)
    if not candidates or pod_limit(plan) == size:
        _set_bound_since(plan, None)
        return None
    if any(pod.is_finished or pod.is_being_deleted for pod in candidates.values()):
        _try_later(plan, candidates)
        return None
    possible = [nodes for nodes in sizes if nodes <= _reached(plan, candidates)]
    is_ready = is_true(plan.status.conditions, ConditionType.PODS_READY)
    if is_ready and possible and possible[-1] == sizes[-1]:
        return _grow_to(possible[-1])
    if not any(pod.node for pod in candidates.values()):
        _set_bound_since(plan, None)
        return None
    elastic = plan.status.elastic
    since = (elastic.bound_since if elastic is not None else None) or format_timestamp(plan.observed.now)
    _set_bound_since(plan, since)
    if not plan.requeue_at(parse_timestamp(since) + timedelta(seconds=plan.job.spec.run_policy.elastic.shrink_after_seconds)):
        return None
    if is_ready and possible:
        return _grow_to(possible[-1])
    _try_later(plan, candidates)
    return None


def _larger_sizes(plan: PlanBuilder) -> list[int]:
    if plan.job.spec.workers.min_nodes is None:
        return []
    size, wanted = group_size(plan), wanted_nodes(plan)
    return [nodes for nodes in plan.job.spec.allowed_nodes if size < nodes <= wanted]


def _may_grow(plan: PlanBuilder) -> bool:
    """Whether pods for further nodes may exist now. If it is too early, the job is reconciled again in time."""
    elastic, progress = plan.status.elastic, plan.status.progress
    if plan.status.phase != "Running" or missing_pods(plan) or any(has_succeeded(pod) for pod in plan.pods):
        return False
    remaining = progress.remaining_seconds if progress is not None else None
    if remaining is not None and remaining < plan.job.spec.run_policy.elastic.grow_after_seconds:
        return False  # the restart would take longer than what is left
    return elastic is None or elastic.grow_time is None or plan.requeue_at(parse_timestamp(elastic.grow_time))


def _candidates(plan: PlanBuilder) -> dict[int, Pod]:
    """The pods for further nodes, by index; without those that were marked for deletion."""
    size, counted = group_size(plan), plan.counted_pods
    return {pod.index: pod for pod in plan.pods if pod.index >= size and pod.uid not in counted}


def _reached(plan: PlanBuilder, candidates: dict[int, Pod]) -> int:
    """The number of nodes that the run could use: those of the group and the next ones without a gap."""
    lost = {item.pod.uid for item in lost_pods(plan)}
    nodes = group_size(plan)
    while (pod := candidates.get(nodes)) is not None and pod.running and pod.uid not in lost:
        nodes += 1
    return nodes


def _grow_to(nodes: int) -> Resize:
    return Resize(nodes, f"The pods for {nodes} nodes are there.", can_save=True)


def _try_later(plan: PlanBuilder, candidates: dict[int, Pod]) -> None:
    """Delete the pods for further nodes, and create them again after a longer pause."""
    plan.mark_for_deletion(*candidates.values())
    elastic = update_elastic(plan, bound_since=None)
    consecutive = elastic.consecutive + 1
    update_elastic(plan, consecutive=consecutive, grow_time=format_timestamp(grow_time(plan, consecutive, elastic.resizes)))


def _set_bound_since(plan: PlanBuilder, since: str | None) -> None:
    if plan.status.elastic is not None:
        update_elastic(plan, bound_since=since)
