"""Failures and disruptions: each is counted once, then its pod is replaced, or the job fails."""

from __future__ import annotations

from datetime import timedelta

from finetune_operator import names
from finetune_operator.api import Failure, Restarts
from finetune_operator.api.conditions import ConditionReason, ConditionType, timestamp
from finetune_operator.reconcile.cleanup import fail
from finetune_operator.reconcile.completion import succeeded
from finetune_operator.reconcile.observed_state import Pod, moment
from finetune_operator.reconcile.plan import Limits, PlanBuilder
from finetune_operator.reconcile.pod_failure import PodFailure, classify
from finetune_operator.reconcile.progress import record_outcome


def count_failures(draft: PlanBuilder) -> bool:
    """Count what ended since the last pass and mark_for_deletion it; True if the job is over with that."""
    incidents = [classify(pod) for pod in _newly_terminated(draft)]
    for incident in incidents:
        if incident.final:
            _fail_at_once(draft, incident)
            return True
    ours = _vanished(draft)
    counted = _one_of_each(draft, incidents)
    if counted or ours:
        _count(draft, counted, ours)
    draft.mark_for_deletion(*(incident.pod for incident in incidents))
    if _over_budget(draft):
        _fail_backoff_limit_exceeded(draft)
        return True
    return False


def delay(restarts: Restarts, limits: Limits) -> timedelta:
    """How long a replacement waits: the first not at all, then twice as long each time."""
    if restarts.consecutive <= 1:
        return timedelta()
    return timedelta(seconds=min(limits.backoff_first * 2.0 ** (restarts.consecutive - 2), limits.backoff_most))


def _newly_terminated(draft: PlanBuilder) -> list[Pod]:
    counted = draft.counted
    return [
        pod
        for pod in draft.seen.pods
        if pod.uid not in counted and (pod.phase == "Failed" or pod.deletion_deadline is not None) and not succeeded(pod)
    ]


def _vanished(draft: PlanBuilder) -> list[str]:
    """Pods that were there when the job ran and went without a trace; the change of phase counts them once."""
    seen = draft.seen
    assert seen.job is not None
    if draft.status.phase != "Running":
        return []
    present = {pod.index for pod in seen.pods}
    return [names.pod_name(seen.name, index) for index in range(seen.job.spec.workers.nodes) if index not in present]


def _one_of_each(draft: PlanBuilder, incidents: list[PodFailure]) -> list[PodFailure]:
    """When one node fails, its peers may end with the same last word: that is one failure, not many."""
    chosen: dict[int, PodFailure] = {}
    for incident in sorted(incidents, key=lambda item: item.pod.index != item.culprit):
        if not _counted_before(draft, incident):
            chosen.setdefault(incident.culprit, incident)
    return list(chosen.values())


def _counted_before(draft: PlanBuilder, incident: PodFailure) -> bool:
    last, since = draft.status.failure, draft.status.restarts.last_time
    return (
        last is not None
        and since is not None
        and last.reason == incident.reason
        and last.pod == names.pod_name(draft.seen.name, incident.culprit)
        and incident.pod.created < moment(since)
    )


def _count(draft: PlanBuilder, incidents: list[PodFailure], vanished: list[str]) -> None:
    now, before = draft.seen.now, draft.status.restarts
    by_reason = dict(before.by_reason)
    for reason in [str(item.reason) for item in incidents] + [str(ConditionReason.POD_DELETED)] * len(vanished):
        by_reason[reason] = by_reason.get(reason, 0) + 1
    disruptions = sum(item.disruption for item in incidents) + len(vanished)
    calm = before.last_time is None or now - moment(before.last_time) > timedelta(seconds=draft.limits.quiet) + delay(
        before, draft.limits
    )
    restarts = Restarts(
        failures=before.failures + len(incidents) + len(vanished) - disruptions,
        disruptions=before.disruptions + disruptions,
        by_reason=by_reason,
        total=before.total + len(incidents) + len(vanished),
        consecutive=1 if calm else before.consecutive + 1,
        last_time=timestamp(now),
    )
    failure = (
        _failure(draft, _worst(incidents))
        if incidents
        else Failure(reason=ConditionReason.POD_DELETED, message="the pod is gone", pod=vanished[0])
    )
    draft.update(restarts=restarts, failure=failure, phase="Restarting")
    sentence = f"Pod {failure.pod} is replaced: {failure.message}"
    draft.condition(ConditionType.RESTARTING, True, failure.reason, sentence)
    draft.condition(ConditionType.RUNNING, False, failure.reason, "Training waits for a pod that is replaced.")
    draft.note("Warning", failure.reason, sentence)


def _worst(incidents: list[PodFailure]) -> PodFailure:
    return next((item for item in incidents if not item.disruption), incidents[0])


def _failure(draft: PlanBuilder, incident: PodFailure) -> Failure:
    culprit = names.pod_name(draft.seen.name, incident.culprit)
    pod = next((pod for pod in draft.seen.pods if pod.name == culprit), incident.pod)
    return Failure(
        reason=str(incident.reason),
        message=incident.message,
        rank=incident.rank,
        node=pod.node or None,
        pod=culprit,
        exit_code=incident.pod.ending.exit_code if incident.pod.ending is not None else None,
    )


def _over_budget(draft: PlanBuilder) -> bool:
    job = draft.seen.job
    assert job is not None
    return draft.status.restarts.failures > job.spec.run_policy.backoff_limit


def _fail_at_once(draft: PlanBuilder, incident: PodFailure) -> None:
    if incident.outcome is not None:
        record_outcome(draft, incident.outcome)
    failure = _failure(draft, incident)
    fail(draft, incident.reason, f"{incident.message} (pod {failure.pod})", failure)


def _fail_backoff_limit_exceeded(draft: PlanBuilder) -> None:
    limit = draft.seen.job.spec.run_policy.backoff_limit if draft.seen.job else 0
    failure, failures = draft.status.failure, draft.status.restarts.failures
    last = f" The last was {failure.reason} on pod {failure.pod}: {failure.message}." if failure is not None else ""
    message = (
        f"{failures} failure{'s' * (failures != 1)} are more than runPolicy.backoffLimit, {limit}.{last} "
        "Apply the job again when the cause is gone; it goes on from its newest checkpoint."
    )
    fail(draft, ConditionReason.BACKOFF_LIMIT_EXCEEDED, message, failure)
