"""One pod for each node: those that are missing are created, and the status says how many are ready."""

from __future__ import annotations

from finetune_operator import names
from finetune_operator.api import WorkersStatus
from finetune_operator.api.conditions import ConditionReason, ConditionType, find_condition, is_true, timestamp
from finetune_operator.reconcile.completion import succeeded
from finetune_operator.reconcile.observed_state import Pod, ReasonMessage, moment
from finetune_operator.reconcile.plan import CreateJobResources, CreatePod, PlanBuilder
from finetune_operator.reconcile.restart_policy import delay


def ensure_pods(draft: PlanBuilder) -> bool:
    """Create missing pods, see to it that dismissed ones go, and say how it stands."""
    seen = draft.seen
    assert seen.job is not None
    nodes = seen.job.spec.workers.nodes
    present = {pod.index: pod for pod in seen.pods}
    missing = [index for index in range(nodes) if index not in present]
    counted = draft.counted
    leaving = [pod for pod in seen.pods if pod.uid in counted]
    if missing or leaving:
        # A peer that is done already would leave the new pod waiting for it for ever, so it has to come back too.
        leaving += [pod for pod in seen.pods if pod.uid not in counted and succeeded(pod)]
    draft.mark_for_deletion(*leaving)
    obstacle = _obstacle(draft, missing)
    if missing and obstacle is None:
        _create(draft, missing)
    _update_ready_condition(draft, nodes, [pod for pod in seen.pods if pod not in leaving], obstacle)
    return False


def _obstacle(draft: PlanBuilder, missing: list[int]) -> ReasonMessage | None:
    """What keeps missing pods from being created now."""
    seen = draft.seen
    if not missing:
        return None
    if seen.missing_secrets:
        draft.requeue_after_seconds(draft.limits.look_again)
        first = seen.missing_secrets[0]
        return ReasonMessage(
            ConditionReason.SECRET_NOT_FOUND,
            f"{first.where}: there is no Secret {first.name!r} in this namespace; create it or correct the name.",
        )
    taken = [name for name in (names.pod_name(seen.name, index) for index in missing) if name in seen.unowned_pods]
    if taken:
        draft.requeue_after_seconds(draft.limits.look_again)
        return ReasonMessage(
            ConditionReason.EARLIER_JOB_STOPPING, f"Pod {taken[0]} of an earlier job with this name has not stopped yet."
        )
    restarts = draft.status.restarts
    if draft.status.phase == "Restarting" and restarts.last_time is not None:
        until = moment(restarts.last_time) + delay(restarts, draft.limits)
        if not draft.requeue_at(until):
            return ReasonMessage(
                ConditionReason.BACKING_OFF,
                f"The next try begins at {timestamp(until)}, after {restarts.consecutive} in a row.",
            )
    return None


def _create(draft: PlanBuilder, missing: list[int]) -> None:
    if draft.status.start_time is None:
        draft.update(start_time=timestamp(draft.seen.now))
    draft.act(CreateJobResources())
    for index in missing:
        draft.act(CreatePod(index))


def _update_ready_condition(draft: PlanBuilder, nodes: int, pods: list[Pod], obstacle: ReasonMessage | None) -> None:
    ready = sum(1 for pod in pods if pod.deletion_deadline is None and (pod.ready or succeeded(pod)))
    draft.update(workers=WorkersStatus(ready=ready, desired=nodes, summary=f"{ready}/{nodes}"))
    if ready == nodes:
        _mark_ready(draft)
        return
    trouble = obstacle or draft.seen.create_error or _first_waiting_reason(pods)
    counts = f"{ready} of {nodes} pods are ready"
    if trouble is not None:
        draft.condition(ConditionType.PODS_READY, False, trouble.reason, f"{counts}. {trouble.message}")
    elif draft.status.phase == "Running":
        draft.condition(
            ConditionType.PODS_READY, False, ConditionReason.PODS_NOT_READY, f"{counts}; the others restart their ranks."
        )
    else:
        draft.condition(ConditionType.PODS_READY, False, ConditionReason.PODS_STARTING, f"{counts}.")


def _mark_ready(draft: PlanBuilder) -> None:
    draft.condition(ConditionType.PODS_READY, True, ConditionReason.PODS_READY, "All pods are ready.")
    if draft.status.phase == "Running":
        return
    draft.update(phase="Running")
    if is_true(draft.status.conditions, ConditionType.RESTARTING):
        restarting = find_condition(draft.status.conditions, ConditionType.RESTARTING)
        assert restarting is not None
        draft.condition(
            ConditionType.RESTARTING, False, ConditionReason.RECOVERED, f"All pods are ready again. {restarting.message}"
        )


def _first_waiting_reason(pods: list[Pod]) -> ReasonMessage | None:
    for pod in pods:
        if pod.trouble is not None:
            return ReasonMessage(pod.trouble.reason, f"Pod {pod.name}: {pod.trouble.message}")
    return None
