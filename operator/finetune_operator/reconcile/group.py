"""The group: the pods 0 to n-1 that train the run. n is spec.workers.nodes, or fewer while an elastic job runs smaller."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from finetune_operator import names
from finetune_operator.api import ElasticStatus, WorkersStatus
from finetune_operator.api.conditions import ConditionReason, ConditionType
from finetune_operator.reconcile.backoff import doubled, jittered
from finetune_operator.reconcile.observed_pod import Pod, ReasonMessage
from finetune_operator.reconcile.plan import PlanBuilder

MAX_GROW_PAUSE = 3600.0  # seconds


def wanted_nodes(plan: PlanBuilder) -> int:
    """spec.workers.nodes; if a queue has admitted fewer pods, the largest number that those allow."""
    return plan.job.spec.largest_size(_admitted_nodes(plan)) or plan.job.spec.workers.nodes


def node_limit(plan: PlanBuilder) -> ReasonMessage | None:
    """Why the run may not use as many nodes as its document names, even if they are there; None if it may."""
    job, admitted = plan.job, _admitted_nodes(plan)
    if admitted < job.spec.workers.nodes:
        return ReasonMessage(
            ConditionReason.ADMITTED_SMALLER,
            f"workers.nodes: the queue {job.queue_name} has admitted {admitted} of {job.spec.workers.nodes} nodes: set "
            "runPolicy.suspend: true, and false when the pods have stopped, so that it admits all of them.",
        )
    limit = job.metadata.node_limit
    if limit is None:
        return None
    return ReasonMessage(
        ConditionReason.LIMITED_BY_PROFILE,
        f"workers.nodes: profile {limit.profile} allows at most {limit.max_nodes}: scale the job to {job.spec.workers.nodes}, "
        "or ask an administrator to allow more.",
    )


def _admitted_nodes(plan: PlanBuilder) -> int:
    """The number of nodes for which there is quota; spec.workers.nodes without a queue."""
    nodes, workload = plan.job.spec.workers.nodes, plan.observed.workload
    if plan.job.queue_name is None or workload is None or workload.pods == 0:
        return nodes
    return min(workload.pods, nodes)


def group_size(plan: PlanBuilder) -> int:
    """The number of nodes that the run uses."""
    elastic = plan.status.elastic
    if plan.job.spec.workers.min_nodes is None or elastic is None or elastic.nodes is None:
        return wanted_nodes(plan)
    return elastic.nodes


def is_member(plan: PlanBuilder, pod: Pod) -> bool:
    """Whether the run needs a pod; the others wait until it grows, or are about to be deleted."""
    return pod.index < group_size(plan)


def update_elastic(plan: PlanBuilder, **fields: Any) -> ElasticStatus:
    """Set fields of status.elastic; returns it."""
    elastic = (plan.status.elastic or ElasticStatus()).model_copy(update=fields)
    if elastic != plan.status.elastic:
        plan.update_status(elastic=elastic)
    return elastic


def reset_size(plan: PlanBuilder) -> None:
    """Forget the size of a group whose pods are all deleted: the next start tries all nodes."""
    if plan.status.elastic is not None:
        update_elastic(plan, nodes=None, message=None, grow_time=None, missing_since=None, bound_since=None)
    conditions = [item for item in plan.status.conditions if item.type != ConditionType.DEGRADED]
    if len(conditions) < len(plan.status.conditions):
        plan.update_status(conditions=conditions)


def set_ready_pods(plan: PlanBuilder, ready: int) -> None:
    """Update status.workers of a job that has or creates pods."""
    _set_workers(plan, ready, group_size(plan))


def set_stopping_pods(plan: PlanBuilder) -> None:
    """Update status.workers of a job whose pods are all being deleted."""
    _set_workers(plan, 0, len([pod for pod in plan.observed.pods if not pod.is_finished]))


def grow_time(plan: PlanBuilder, consecutive: int, resizes: int) -> datetime:
    """When pods for more nodes are created after a change of the number of nodes, or a failed attempt to change it."""
    first = plan.job.spec.run_policy.elastic.grow_after_seconds
    pause = doubled(first, max(first, MAX_GROW_PAUSE), consecutive)
    jitter_key = f"{plan.observed.uid} {resizes} {consecutive}"
    return plan.observed.now + max(jittered(pause, jitter_key), timedelta())


def _set_workers(plan: PlanBuilder, ready: int, replicas: int) -> None:
    desired = plan.job.desired_nodes
    selector = f"{names.JOB_LABEL}={plan.observed.name}"
    plan.update_status(workers=WorkersStatus.of(ready, desired, replicas, selector))
