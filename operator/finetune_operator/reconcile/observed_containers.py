"""The state of a pod's containers, parsed from the status of a Pod object.

The trainer container decides about a pod. Sidecars, which admission webhooks inject, may end later, never, or restart; init
containers matter only until the trainer container starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from finetune_operator import names

# Waiting reasons of every healthy pod that starts.
STARTING = frozenset({"ContainerCreating", "PodInitializing"})


@dataclass(frozen=True, slots=True)
class TerminatedState:
    """How a container terminated; `reason` is set by the kubelet, `message` is the termination message."""

    exit_code: int
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class ReasonMessage:
    """A reason (constant in CamelCase) and its message, as reported by Kubernetes or by the operator."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class FailedContainer:
    """An init container that failed, so that the kubelet never starts the trainer container."""

    name: str
    terminated: TerminatedState


class ContainerStates(NamedTuple):
    """The states of the containers that matter to a pod.

    `is_running`, `is_ready` and `terminated` are those of the trainer container. Until it starts, `waiting` is the reason why
    it or an init container does not start, `initializing` the init container that runs, and `failed_init_container` the one
    that failed. `has_unfinished_sidecar` is true if another container runs or waits after the trainer container has
    terminated, so that the pod does not stop by itself; the kubelet ends native sidecars.
    """

    is_running: bool = False
    is_ready: bool = False
    terminated: TerminatedState | None = None
    waiting: ReasonMessage | None = None
    initializing: str = ""
    failed_init_container: FailedContainer | None = None
    has_unfinished_sidecar: bool = False


def parse_containers(spec: dict[str, Any], status: dict[str, Any]) -> ContainerStates:
    """The states of the containers in the status of a pod."""
    trainer = _trainer_status(status)
    state = trainer.get("state") or {}
    has_stopped = status.get("phase") in ("Succeeded", "Failed")
    terminated = state.get("terminated")
    if not terminated and has_stopped:
        # The kubelet has lost the container: its status is waiting again, although nothing starts in a terminated pod.
        terminated = (trainer.get("lastState") or {}).get("terminated")
    if terminated:
        return ContainerStates(terminated=_terminated_state(terminated), has_unfinished_sidecar=_has_unfinished_sidecar(status))
    if has_stopped and state.get("running") is not None:
        return ContainerStates()  # the node is gone, and the pod was marked as failed without it
    if state.get("running") is not None:
        return ContainerStates(is_running=True, is_ready=bool(trainer.get("ready")))
    return _before_start(spec, status, _waiting(state.get("waiting")))


def _before_start(spec: dict[str, Any], status: dict[str, Any], waiting: ReasonMessage | None) -> ContainerStates:
    for name, state in _unfinished_init_containers(spec, status):
        terminated = state.get("terminated")
        if terminated:
            return ContainerStates(failed_init_container=FailedContainer(name, _terminated_state(terminated)))
        reason = _waiting(state.get("waiting"))
        if reason is not None:
            return ContainerStates(waiting=ReasonMessage(reason.reason, f"init container {name}: {reason.message}"))
        if state.get("running") is not None:
            return ContainerStates(initializing=name)
    return ContainerStates(waiting=waiting)


def _unfinished_init_containers(spec: dict[str, Any], status: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and state of each init container that is not done, in the order in which they run."""
    sidecars = set()
    for container in spec.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            sidecars.add(container.get("name"))
    for container in status.get("initContainerStatuses") or ():
        name, state = container.get("name") or "", container.get("state") or {}
        terminated = state.get("terminated")
        # The kubelet restarts a native sidecar that terminates, and goes on once it has started.
        is_started_sidecar = name in sidecars and (container.get("started") or terminated)
        if not is_started_sidecar and not (terminated and terminated.get("exitCode") == 0):
            yield name, state


def _trainer_status(status: dict[str, Any]) -> dict[str, Any]:
    """The status of the trainer container; empty before the kubelet has reported it."""
    for container in status.get("containerStatuses") or ():
        if container.get("name") == names.CONTAINER:
            result: dict[str, Any] = container
            return result
    return {}


def _has_unfinished_sidecar(status: dict[str, Any]) -> bool:
    for container in status.get("containerStatuses") or ():
        if container.get("name") != names.CONTAINER and not (container.get("state") or {}).get("terminated"):
            return True
    return False


def _terminated_state(terminated: dict[str, Any]) -> TerminatedState:
    exit_code = terminated.get("exitCode")
    return TerminatedState(
        1 if exit_code is None else exit_code, terminated.get("reason") or "", terminated.get("message") or ""
    )


def _waiting(waiting: dict[str, Any] | None) -> ReasonMessage | None:
    if not waiting or waiting.get("reason") in STARTING:
        return None
    return ReasonMessage(waiting.get("reason") or "Waiting", waiting.get("message") or "")
