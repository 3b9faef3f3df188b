"""One pod for each node: those that are missing are created, and the status says how many are ready."""

from __future__ import annotations

from finetune_operator import names
from finetune_operator.api import WorkersStatus
from finetune_operator.conditions import Type, Why, find, is_true, timestamp
from finetune_operator.reconcile.completion import succeeded
from finetune_operator.reconcile.observed import Pod, Trouble, moment
from finetune_operator.reconcile.plan import CreatePod, CreateShared, Draft
from finetune_operator.reconcile.restart import delay


def keep_pods(draft: Draft) -> bool:
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
    draft.dismiss(*leaving)
    obstacle = _obstacle(draft, missing)
    if missing and obstacle is None:
        _create(draft, missing)
    _say(draft, nodes, [pod for pod in seen.pods if pod not in leaving], obstacle)
    return False


def _obstacle(draft: Draft, missing: list[int]) -> Trouble | None:
    """What keeps missing pods from being created now."""
    seen = draft.seen
    if not missing:
        return None
    if seen.missing_secrets:
        draft.wake_in(draft.limits.look_again)
        first = seen.missing_secrets[0]
        return Trouble(
            Why.SECRET_NOT_FOUND,
            f"{first.where}: there is no Secret {first.name!r} in this namespace; create it or correct the name.",
        )
    taken = [name for name in (names.pod_name(seen.name, index) for index in missing) if name in seen.strangers]
    if taken:
        draft.wake_in(draft.limits.look_again)
        return Trouble(Why.EARLIER_JOB_STOPPING, f"Pod {taken[0]} of an earlier job with this name has not stopped yet.")
    restarts = draft.status.restarts
    if draft.status.phase == "Restarting" and restarts.last_time is not None:
        until = moment(restarts.last_time) + delay(restarts, draft.limits)
        if not draft.wake_at(until):
            return Trouble(Why.BACKING_OFF, f"The next try begins at {timestamp(until)}, after {restarts.in_a_row} in a row.")
    return None


def _create(draft: Draft, missing: list[int]) -> None:
    if draft.status.start_time is None:
        draft.update(start_time=timestamp(draft.seen.now))
    draft.act(CreateShared())
    for index in missing:
        draft.act(CreatePod(index))


def _say(draft: Draft, nodes: int, pods: list[Pod], obstacle: Trouble | None) -> None:
    ready = sum(1 for pod in pods if pod.gone_by is None and (pod.ready or succeeded(pod)))
    draft.update(workers=WorkersStatus(ready=ready, desired=nodes, summary=f"{ready}/{nodes}"))
    if ready == nodes:
        _all_ready(draft)
        return
    trouble = obstacle or draft.seen.refusal or _first_trouble(pods)
    counts = f"{ready} of {nodes} pods are ready"
    if trouble is not None:
        draft.condition(Type.PODS_READY, False, trouble.reason, f"{counts}. {trouble.message}")
    elif draft.status.phase == "Running":
        draft.condition(Type.PODS_READY, False, Why.PODS_NOT_READY, f"{counts}; the others restart their ranks.")
    else:
        draft.condition(Type.PODS_READY, False, Why.PODS_STARTING, f"{counts}.")


def _all_ready(draft: Draft) -> None:
    draft.condition(Type.PODS_READY, True, Why.PODS_READY, "All pods are ready.")
    if draft.status.phase == "Running":
        return
    draft.update(phase="Running")
    if is_true(draft.status.conditions, Type.RESTARTING):
        restarting = find(draft.status.conditions, Type.RESTARTING)
        assert restarting is not None
        draft.condition(Type.RESTARTING, False, Why.RECOVERED, f"All pods are ready again. {restarting.message}")


def _first_trouble(pods: list[Pod]) -> Trouble | None:
    for pod in pods:
        if pod.trouble is not None:
            return Trouble(pod.trouble.reason, f"Pod {pod.name}: {pod.trouble.message}")
    return None
