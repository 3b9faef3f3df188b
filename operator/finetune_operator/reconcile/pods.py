"""The pods of a job: creates missing pods, one for each node, and reports how many are ready."""

from __future__ import annotations

from finetune_operator import names
from finetune_operator.api import WorkersStatus
from finetune_operator.api.conditions import (
    ConditionReason,
    ConditionType,
    find_condition,
    format_timestamp,
    parse_timestamp,
)
from finetune_operator.reconcile.completion import has_succeeded
from finetune_operator.reconcile.observed_pod import Pod, ReasonMessage
from finetune_operator.reconcile.plan import CreateJobResources, CreatePod, PlanBuilder
from finetune_operator.reconcile.restart_policy import backoff_delay


def ensure_pods(plan: PlanBuilder) -> bool:
    """Create missing pods, delete the pods that were marked for deletion, and update the PodsReady condition."""
    pods = plan.observed.pods
    missing = _missing_indices(plan)
    counted = plan.counted_pods
    leaving = [pod for pod in pods if pod.uid in counted]
    if missing or leaving:
        # A replacement would wait forever for a peer that has already succeeded, so that peer is replaced too.
        leaving += [pod for pod in pods if pod.uid not in counted and has_succeeded(pod)]
    plan.mark_for_deletion(*leaving)
    obstacle = _create_obstacle(plan, missing)
    if missing and obstacle is None:
        _create_pods(plan, missing)
    leaving_uids = {pod.uid for pod in leaving}
    staying = [pod for pod in pods if pod.uid not in leaving_uids]
    _update_ready_condition(plan, staying, obstacle)
    return False


def _missing_indices(plan: PlanBuilder) -> list[int]:
    existing = {pod.index for pod in plan.observed.pods}
    return [index for index in range(plan.job.spec.workers.nodes) if index not in existing]


def _create_obstacle(plan: PlanBuilder, missing: list[int]) -> ReasonMessage | None:
    """Why the missing pods cannot be created now; None if they can."""
    if not missing:
        return None
    return _missing_secret(plan) or _previous_pod(plan, missing) or _unknown_placement(plan) or _backoff(plan)


def _missing_secret(plan: PlanBuilder) -> ReasonMessage | None:
    if not plan.observed.missing_secrets:
        return None
    plan.requeue_after(plan.timings.recheck_interval)
    secret = plan.observed.missing_secrets[0]
    return ReasonMessage(
        ConditionReason.SECRET_NOT_FOUND,
        f"{secret.field}: the Secret {secret.name!r} does not exist in this namespace: create it or correct the name.",
    )


def _previous_pod(plan: PlanBuilder, missing: list[int]) -> ReasonMessage | None:
    for index in missing:
        name = names.pod_name(plan.observed.name, index)
        if name in plan.observed.unowned_pods:
            plan.requeue_after(plan.timings.recheck_interval)
            return ReasonMessage(
                ConditionReason.PREVIOUS_PODS_TERMINATING,
                f"Pod {name} of a previous job with this name is still terminating.",
            )
    return None


def _unknown_placement(plan: PlanBuilder) -> ReasonMessage | None:
    if plan.observed.placement_error is not None:
        plan.requeue_after(plan.timings.recheck_interval)
    return plan.observed.placement_error


def _backoff(plan: PlanBuilder) -> ReasonMessage | None:
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


def _create_pods(plan: PlanBuilder, missing: list[int]) -> None:
    if plan.status.start_time is None:
        plan.update_status(start_time=format_timestamp(plan.observed.now))
    plan.add_action(CreateJobResources())
    for index in missing:
        plan.add_action(CreatePod(index))


def _update_ready_condition(plan: PlanBuilder, pods: list[Pod], obstacle: ReasonMessage | None) -> None:
    nodes = plan.job.spec.workers.nodes
    ready = len([pod for pod in pods if _is_ready(pod)])
    plan.update_status(workers=WorkersStatus.of(ready, nodes))
    if ready == nodes:
        _mark_ready(plan)
        return
    counts = f"{ready} of {nodes} pods are ready"
    cause = obstacle or plan.observed.create_error or _first_waiting_reason(pods)
    if cause is not None:
        reason, message = cause.reason, f"{counts}. {cause.message}"
    elif plan.status.phase == "Running":
        reason, message = ConditionReason.PODS_NOT_READY, f"{counts}; the others are restarting their ranks."
    else:
        reason, message = ConditionReason.PODS_STARTING, f"{counts}.{_initializing(pods)}"
    plan.set_condition(ConditionType.PODS_READY, False, reason, message)


def _is_ready(pod: Pod) -> bool:
    return not pod.is_being_deleted and (pod.ready or has_succeeded(pod))


def _mark_ready(plan: PlanBuilder) -> None:
    plan.set_condition(ConditionType.PODS_READY, True, ConditionReason.PODS_READY, "All pods are ready.")
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


def _first_waiting_reason(pods: list[Pod]) -> ReasonMessage | None:
    for pod in pods:
        if pod.waiting is not None:
            return ReasonMessage(pod.waiting.reason, f"Pod {pod.name}: {pod.waiting.message}")
    return None
