"""Restart policy: counts each failure and disruption once, then replaces the pod or fails the job."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from finetune_operator import names
from finetune_operator.api import Failure, Restarts
from finetune_operator.api.conditions import ConditionReason, ConditionType, format_timestamp, parse_timestamp
from finetune_operator.reconcile.backoff import doubled, jittered
from finetune_operator.reconcile.cleanup import fail
from finetune_operator.reconcile.completion import has_succeeded
from finetune_operator.reconcile.disruption_limit import limit_disruptions, max_pause
from finetune_operator.reconcile.failed_pods import current_pod_name, retain_or_delete
from finetune_operator.reconcile.failure_policy import apply_failure_policy
from finetune_operator.reconcile.group import group_size, is_member
from finetune_operator.reconcile.node_avoidance import avoid_failed_nodes
from finetune_operator.reconcile.node_loss import classify_lost, pods_to_replace
from finetune_operator.reconcile.observed_pod import Pod
from finetune_operator.reconcile.plan import PlanBuilder
from finetune_operator.reconcile.pod_failure import PodFailure, Verdict, classify, vanished
from finetune_operator.reconcile.progress import record_checkpoints, record_outcome


def count_failures(plan: PlanBuilder) -> bool:
    """Count the pods that terminated since the last reconcile, to be replaced. True if the job has failed."""
    policy = plan.job.spec.run_policy.failure_policy
    record_checkpoints(plan)
    terminated, lost = _newly_terminated(plan), pods_to_replace(plan)
    pod_failures = [apply_failure_policy(policy, classify(pod)) for pod in terminated]
    pod_failures += [apply_failure_policy(policy, classify_lost(item)) for item in lost]
    pod_failures += [apply_failure_policy(policy, vanished(index)) for index in _vanished_pods(plan)]
    for pod_failure in pod_failures:
        if pod_failure.verdict is Verdict.FAIL:
            _fail_permanently(plan, pod_failure)
            return True
    avoid_failed_nodes(plan, pod_failures)
    uncounted = _distinct_failures(plan, pod_failures)
    if uncounted:
        _record_restart(plan, limit_disruptions(plan, uncounted))
    retain_or_delete(plan, *terminated)
    plan.mark_for_deletion(*(item.pod for item in lost), force=True)
    if plan.status.restarts.failures > plan.job.spec.run_policy.backoff_limit:
        _fail_backoff_limit_exceeded(plan)
        return True
    return False


def backoff_delay(restarts: Restarts) -> timedelta:
    """Delay between the last restart and the creation of the replacement pods."""
    return timedelta(seconds=restarts.backoff_seconds)


def never_ran(pod: Pod) -> bool:
    """Whether a pod is deleted before it ran: `gang_start` counts it as a pod that could not start."""
    return pod.is_being_deleted and pod.phase == "Pending" and not pod.running and not pod.is_finished


def _newly_terminated(plan: PlanBuilder) -> list[Pod]:
    """Pods of the group whose trainer container failed, or that another client deletes, and that are not counted yet."""
    counted = plan.counted_pods
    terminated = []
    for pod in plan.observed.pods:
        if pod.uid in counted or has_succeeded(pod) or never_ran(pod) or not is_member(plan, pod):
            continue
        if pod.is_finished or pod.is_being_deleted:
            terminated.append(pod)
    return terminated


def _vanished_pods(plan: PlanBuilder) -> list[int]:
    """Node indices of the pods of a running job that do not exist any more.

    The phase then changes from Running to Restarting, so that they are counted once.
    """
    if plan.status.phase != "Running":
        return []
    existing = {pod.index for pod in plan.observed.pods}
    return [index for index in range(group_size(plan)) if index not in existing]


def _distinct_failures(plan: PlanBuilder, pod_failures: list[PodFailure]) -> list[PodFailure]:
    """One failure for each node that failed first: when its peers terminate with it, that is one failure, not many.

    The failure of the originating pod is preferred to those of its peers.
    """
    by_origin: dict[int, PodFailure] = {}
    for pod_failure in sorted(pod_failures, key=lambda item: item.pod is not None and item.pod.index != item.origin):
        if not _is_already_counted(plan, pod_failure):
            by_origin.setdefault(pod_failure.origin, pod_failure)
    return list(by_origin.values())


def _is_already_counted(plan: PlanBuilder, pod_failure: PodFailure) -> bool:
    """Whether a pod reports the failure that was counted last, and existed when it was counted."""
    last_failure, last_time = plan.status.failure, plan.status.restarts.last_time
    return (
        pod_failure.pod is not None
        and last_failure is not None
        and last_time is not None
        and last_failure.reason == pod_failure.reason
        and last_failure.pod in names.pod_names(plan.observed.name, pod_failure.origin)
        and pod_failure.pod.created < parse_timestamp(last_time)
    )


def _record_restart(plan: PlanBuilder, pod_failures: list[PodFailure]) -> None:
    failure = _to_failure(plan, _most_severe(pod_failures))
    plan.update_status(restarts=_updated_restarts(plan, pod_failures), failure=failure, phase="Restarting")
    message = f"Pod {failure.pod} is replaced: {failure.message}"
    plan.set_condition(ConditionType.RESTARTING, True, failure.reason, message)
    plan.set_condition(ConditionType.RUNNING, False, failure.reason, "Training is waiting for a replacement pod.")
    plan.emit_event("Warning", failure.reason, message)


def _updated_restarts(plan: PlanBuilder, pod_failures: list[PodFailure]) -> Restarts:
    previous = plan.status.restarts
    verdicts = Counter(pod_failure.verdict for pod_failure in pod_failures)
    consecutive = previous.consecutive + 1 if _is_consecutive(plan) else 1
    return previous.model_copy(
        update={
            "failures": previous.failures + verdicts[Verdict.RETRY],
            "disruptions": previous.disruptions + verdicts[Verdict.DISRUPTION],
            "ignored": previous.ignored + verdicts[Verdict.IGNORE],
            "by_reason": dict(Counter(previous.by_reason) + Counter(str(item.reason) for item in pod_failures)),
            "total": previous.total + len(pod_failures),
            "consecutive": consecutive,
            "last_time": format_timestamp(plan.observed.now),
            "backoff_seconds": _backoff_seconds(plan, consecutive, is_disruption=set(verdicts) == {Verdict.DISRUPTION}),
        }
    )


def _backoff_seconds(plan: PlanBuilder, consecutive: int, *, is_disruption: bool) -> int:
    """Pause before pods are replaced: none for the first restart, then doubled with each consecutive one.

    Jobs that fail together, for example because their storage is unavailable, restart at different times.
    """
    timings = plan.timings
    if consecutive <= 1:
        return 0
    longest = timings.backoff_max
    if is_disruption:
        longest = max_pause(plan.job.spec.run_policy.max_disruptions_per_hour, timings)
    pause = doubled(timings.backoff_initial, longest, consecutive - 1)
    return round(jittered(pause, f"{plan.observed.uid} {plan.status.restarts.total}").total_seconds())


def _is_consecutive(plan: PlanBuilder) -> bool:
    """Whether the job trained for less than `backoff_reset` since its last restart and the back-off delay after it."""
    restarts = plan.status.restarts
    if restarts.last_time is None:
        return False
    since_last = plan.observed.now - parse_timestamp(restarts.last_time)
    return since_last <= timedelta(seconds=plan.timings.backoff_reset) + backoff_delay(restarts)


def _most_severe(pod_failures: list[PodFailure]) -> PodFailure:
    for pod_failure in pod_failures:
        if pod_failure.verdict is Verdict.RETRY:
            return pod_failure
    return pod_failures[0]


def _to_failure(plan: PlanBuilder, pod_failure: PodFailure) -> Failure:
    """status.failure: names the pod and the node where the failure originated."""
    pod_name = current_pod_name(plan, pod_failure.origin)
    node = pod_failure.pod.node if pod_failure.pod is not None else ""
    for pod in plan.observed.pods:
        if pod.name == pod_name:
            node = pod.node
            break
    terminated = pod_failure.pod.terminated if pod_failure.pod is not None else None
    return Failure(
        reason=str(pod_failure.reason),
        message=pod_failure.message,
        rank=pod_failure.rank,
        node=node or None,
        pod=pod_name,
        exit_code=terminated.exit_code if terminated is not None else None,
    )


def _fail_permanently(plan: PlanBuilder, pod_failure: PodFailure) -> None:
    if pod_failure.outcome is not None:
        record_outcome(plan, pod_failure.outcome)
    failure = _to_failure(plan, pod_failure)
    fail(plan, pod_failure.reason, f"{pod_failure.message} (pod {failure.pod})", failure)


def _fail_backoff_limit_exceeded(plan: PlanBuilder) -> None:
    limit = plan.job.spec.run_policy.backoff_limit
    failure, failures = plan.status.failure, plan.status.restarts.failures
    count = "1 failure exceeds" if failures == 1 else f"{failures} failures exceed"
    last = ""
    if failure is not None:
        last = f" The last one was {failure.reason} on pod {failure.pod}: {failure.message}."
    message = (
        f"runPolicy.backoffLimit: {count} the limit of {limit}.{last} "
        "Remove the cause and apply the job again; it resumes from its newest checkpoint."
    )
    fail(plan, ConditionReason.BACKOFF_LIMIT_EXCEEDED, message, failure)
