"""Why pods do not exist or do not start: the causes, and the pauses before pods are created again."""

from __future__ import annotations

from datetime import timedelta

from finetune_operator.api.conditions import (
    ConditionReason,
    ConditionType,
    find_condition,
    format_timestamp,
    parse_timestamp,
)
from finetune_operator.reconcile.failed_pods import current_pod_name
from finetune_operator.reconcile.group import group_size, is_member
from finetune_operator.reconcile.observed_pod import Pod, ReasonMessage
from finetune_operator.reconcile.plan import PlanBuilder
from finetune_operator.reconcile.restart_policy import backoff_delay

RECHECK_SHARE = 0.1  # of the time since the pods were ready, between checks of a condition that no watch reports

IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})


def missing_indices(plan: PlanBuilder) -> list[int]:
    """The nodes of the group that have no pod, not even one that is being deleted."""
    existing = {pod.index for pod in plan.pods}
    return [index for index in range(group_size(plan)) if index not in existing]


def start_obstacle(plan: PlanBuilder) -> ReasonMessage | None:
    """Why a pod cannot be created or cannot start; None if all pods run, or start as they should."""
    return _missing_pod_cause(plan, missing_indices(plan)) or _waiting_pod_cause(plan)


def create_obstacle(plan: PlanBuilder, missing: list[int]) -> ReasonMessage | None:
    """Why the missing pods are not created now; None if they are to be created."""
    if not missing:
        return None
    cause = _released(plan) or _missing_secret(plan) or _previous_pod(plan, missing) or _unknown_placement(plan)
    return cause or _restart_backoff(plan) or _create_backoff(plan)


def _missing_pod_cause(plan: PlanBuilder, missing: list[int]) -> ReasonMessage | None:
    if not missing:
        return None
    return _missing_secret(plan) or _previous_pod(plan, missing) or _unknown_placement(plan) or plan.observed.create_error


def _missing_secret(plan: PlanBuilder) -> ReasonMessage | None:
    if not plan.observed.missing_secrets:
        return None
    _recheck_later(plan)
    secret = plan.observed.missing_secrets[0]
    return ReasonMessage(
        ConditionReason.SECRET_NOT_FOUND,
        f"{secret.field}: the Secret {secret.name!r} does not exist in this namespace: create it or correct the name.",
    )


def _previous_pod(plan: PlanBuilder, missing: list[int]) -> ReasonMessage | None:
    for index in missing:
        name = current_pod_name(plan, index)
        if name in plan.observed.unowned_pods:
            _recheck_later(plan)
            return ReasonMessage(
                ConditionReason.PREVIOUS_PODS_TERMINATING,
                f"Pod {name} of a previous job with this name is still terminating.",
            )
    return None


def _unknown_placement(plan: PlanBuilder) -> ReasonMessage | None:
    if plan.observed.placement_error is not None:
        _recheck_later(plan)
    return plan.observed.placement_error


def _recheck_later(plan: PlanBuilder) -> None:
    """Check again after a while: the longer the pods have not been ready, the later."""
    ready = find_condition(plan.status.conditions, ConditionType.PODS_READY)
    waited = 0.0
    if ready is not None and ready.status != "True":
        waited = (plan.observed.now - parse_timestamp(ready.last_transition_time)) / timedelta(seconds=1)
    timings = plan.timings
    plan.requeue_after(min(max(timings.recheck_interval, RECHECK_SHARE * waited), timings.recheck_max))


def _released(plan: PlanBuilder) -> ReasonMessage | None:
    """The pause after the job's pods were released because one of them could not start."""
    pending = plan.status.pending
    if pending is None or pending.retry_time is None or plan.requeue_at(parse_timestamp(pending.retry_time)):
        return None
    return ReasonMessage(
        pending.reason or ConditionReason.PODS_RELEASED,
        f"{pending.message or ''} The pods were released at {pending.release_time} and are created again at "
        f"{pending.retry_time}.".strip(),
    )


def _restart_backoff(plan: PlanBuilder) -> ReasonMessage | None:
    restarts = plan.status.restarts
    if plan.status.phase != "Restarting" or restarts.last_time is None:
        return None
    backoff_end = parse_timestamp(restarts.last_time) + backoff_delay(restarts)
    if plan.requeue_at(backoff_end):
        return None
    return ReasonMessage(
        ConditionReason.BACKING_OFF,
        f"The pods restart at {format_timestamp(backoff_end)}, after {restarts.consecutive} consecutive restarts.",
    )


def _create_backoff(plan: PlanBuilder) -> ReasonMessage | None:
    """The pause after the API server rejected an object of the job."""
    observed = plan.observed
    if observed.create_error is None or observed.create_retry_time is None or plan.requeue_at(observed.create_retry_time):
        return None
    return observed.create_error


def _waiting_pod_cause(plan: PlanBuilder) -> ReasonMessage | None:
    for pod in plan.pods:
        first_check = pod.created + timedelta(seconds=plan.timings.start_check_after)
        if pod.is_starting_containers and plan.requeue_at(first_check):
            plan.requeue_after(plan.timings.start_check_interval)
    members = [pod for pod in plan.pods if is_member(plan, pod)]
    for pod in sorted(members, key=lambda pod: pod.waiting is None):  # what a pod says of itself comes first
        obstacle = pod_obstacle(plan, pod)
        if obstacle is not None:
            return obstacle
    return None


def pod_obstacle(plan: PlanBuilder, pod: Pod) -> ReasonMessage | None:
    """Why a pod that exists does not start; None if it runs, starts as it should, or ends."""
    if pod.is_being_deleted or pod.is_finished:
        return None
    if pod.waiting is not None:
        return _describe_waiting(pod, pod.waiting)
    problem = plan.observed.start_problems.get(pod.uid)
    if problem is None or pod.ready:
        return None
    return ReasonMessage(_volume_reason(problem), f"Pod {pod.name} does not start: {_sentence(problem.message)}")


def is_paused(plan: PlanBuilder) -> bool:
    """Whether pods are not created for a while because some of them failed, or could not start."""
    return (_released(plan) or _restart_backoff(plan)) is not None


def _describe_waiting(pod: Pod, waiting: ReasonMessage) -> ReasonMessage:
    message = _sentence(waiting.message)
    if waiting.reason == "Unschedulable":
        return ReasonMessage(_volume_reason(waiting), f"Pod {pod.name} cannot be scheduled: {message}")
    if waiting.reason == "SchedulingGated":
        return ReasonMessage(waiting.reason, f"Pod {pod.name} waits for its scheduling gates: {message}")
    if waiting.reason in IMAGE_REASONS:
        return ReasonMessage(waiting.reason, f"Pod {pod.name} cannot pull its image: {message}")
    return ReasonMessage(waiting.reason, f"Pod {pod.name}: {message}")


def _volume_reason(waiting: ReasonMessage) -> str:
    """VolumeNotFound if the message of the scheduler or the kubelet says that an object with a volume's data does not exist."""
    is_about_volume = waiting.reason == "FailedMount" or "persistentvolumeclaim" in waiting.message
    return ConditionReason.VOLUME_NOT_FOUND if is_about_volume and "not found" in waiting.message else waiting.reason


def _sentence(message: str) -> str:
    return f"{message.rstrip('. ')}."
