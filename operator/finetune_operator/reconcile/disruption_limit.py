"""runPolicy.maxDisruptionsPerHour: a disruption beyond the limit counts as a failure, so that a loop of evictions ends.

Only disruptions without progress are limited: a checkpoint that is newer than a disruption removes it from the count. A run on
spot nodes that are reclaimed every few minutes is slow, but each of its pods stores a checkpoint before it goes, so it is never
failed. The pauses between restarts must not hide a loop: see `max_pause`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from finetune_operator.api.conditions import format_timestamp, parse_timestamp
from finetune_operator.api.status import RecentDisruption
from finetune_operator.reconcile.plan import PlanBuilder, ReconcileTimings
from finetune_operator.reconcile.pod_failure import PodFailure, Verdict

WINDOW = timedelta(hours=1)
SAME_INCIDENT = timedelta(seconds=60)  # a drain, or the loss of a node, reaches all pods of a job within this time


def limit_disruptions(plan: PlanBuilder, pod_failures: list[PodFailure]) -> list[PodFailure]:
    """Record the disruption among these failures in the status, and count it as a failure if it exceeds the limit.

    Pods that are disrupted together are one disruption, and at most one of them counts.
    """
    recent = _without_progress(plan)
    disrupted = [item for item in pod_failures if item.verdict is Verdict.DISRUPTION]
    limit = plan.job.spec.run_policy.max_disruptions_per_hour
    exceeded = None
    if disrupted and not _belong_to_last(plan, disrupted):
        recent = [*recent, RecentDisruption(time=format_timestamp(plan.observed.now), step=_checkpoint_step(plan))]
        recent = recent[-(limit + 1) :]
        if len(recent) > limit:
            exceeded = disrupted[0]
    plan.update_status(restarts=plan.status.restarts.model_copy(update={"recent_disruptions": recent}))
    return [_counted(item, limit) if item is exceeded else item for item in pod_failures]


def max_pause(limit: int, timings: ReconcileTimings) -> float:
    """The longest pause before a disrupted pod is replaced, in seconds.

    It is a third of the mean interval between disruptions at the limit: with the usual pause of five minutes a loop of
    evictions would stay below 20 an hour for ever.
    """
    if limit == 0:
        return timings.backoff_max
    return min(timings.backoff_max, max(timings.backoff_initial, WINDOW.total_seconds() / (3 * limit)))


def _without_progress(plan: PlanBuilder) -> list[RecentDisruption]:
    """The disruptions of the last hour since which no newer checkpoint was saved."""
    step, begin = _checkpoint_step(plan), plan.observed.now - WINDOW
    return [
        item
        for item in plan.status.restarts.recent_disruptions
        if item.step >= step and parse_timestamp(item.time) > begin
    ]  # fmt: skip


def _belong_to_last(plan: PlanBuilder, disrupted: list[PodFailure]) -> bool:
    """Whether these pods already existed at the last disruption, and were disrupted soon after it."""
    recorded = plan.status.restarts.recent_disruptions
    if not recorded:
        return False
    last = parse_timestamp(recorded[-1].time)
    if plan.observed.now - last > SAME_INCIDENT:
        return False
    return all(item.pod is None or item.pod.created < last for item in disrupted)


def _checkpoint_step(plan: PlanBuilder) -> int:
    checkpoint = plan.status.checkpoint
    return checkpoint.step if checkpoint is not None else 0


def _counted(pod_failure: PodFailure, limit: int) -> PodFailure:
    allowed = "any disruption" if limit == 0 else f"more than {limit} disruptions within an hour without a newer checkpoint"
    message = f"{pod_failure.message} (runPolicy.maxDisruptionsPerHour: {allowed} counts towards backoffLimit)"
    return replace(pod_failure, verdict=Verdict.RETRY, message=message)
