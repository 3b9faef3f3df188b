"""Status and spec of trainer pods as Kubernetes 1.37 writes them, by situation.

They follow the sources of the kubelet (eviction, admission, node shutdown, lost containers), of containerd's CRI service, and
of the controllers that evict pods.
"""

from __future__ import annotations

from typing import Any

STARTED = "2026-01-01T12:00:05Z"
ENDED = "2026-01-01T12:10:00Z"
RUNNING = {"running": {"startedAt": STARTED}}
TRAINER = {"name": "trainer", "image": "trainer:1"}
PROXY = {"name": "istio-proxy", "image": "proxy:1"}
WAITING = {"waiting": {"reason": "PodInitializing"}}


def terminated(exit_code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    """The state of a terminated container."""
    state = {"exitCode": exit_code, "reason": reason, "startedAt": STARTED, "finishedAt": ENDED}
    return {"terminated": state | ({"message": message} if message else {})}


def container(name: str, state: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """One entry of containerStatuses or initContainerStatuses."""
    is_running = "running" in state
    return {
        "name": name,
        "image": f"{name}:1",
        "state": state,
        "lastState": {},
        "ready": is_running,
        "started": is_running,
        "restartCount": 0,
    } | fields


def conditions(
    *, ready: bool, containers_ready: bool | None = None, reason: str = "ContainersNotReady"
) -> list[dict[str, Any]]:
    """The conditions that the kubelet keeps for a scheduled pod."""
    containers_ready = ready if containers_ready is None else containers_ready
    values = {
        "PodReadyToStartContainers": True,
        "Initialized": True,
        "Ready": ready,
        "ContainersReady": containers_ready,
        "PodScheduled": True,
    }
    return [
        {"type": name, "status": str(value), "lastTransitionTime": STARTED} | ({} if value else {"reason": reason})
        for name, value in values.items()
    ]


def disruption_target(reason: str, message: str) -> dict[str, Any]:
    """The condition of a pod that Kubernetes stops."""
    return {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message, "lastTransitionTime": ENDED}


def evicted(message: str, *, for_pressure: bool) -> dict[str, Any]:
    """A pod that the kubelet evicted; only an eviction for pressure has a DisruptionTarget condition."""
    target = [disruption_target("TerminationByKubelet", message)] if for_pressure else []
    return {
        "phase": "Failed",
        "reason": "Evicted",
        "message": message,
        "conditions": conditions(ready=False) + target,
        "containerStatuses": [container("trainer", terminated(137))],
    }


def rejected(reason: str, message: str) -> dict[str, Any]:
    """A pod that the kubelet did not admit; it has no containers."""
    return {"phase": "Failed", "reason": reason, "message": f"Pod was rejected: {message}", "conditions": []}


def ended(state: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A pod of which the only container ended."""
    is_success = state["terminated"]["exitCode"] == 0
    return {
        "phase": "Succeeded" if is_success else "Failed",
        "conditions": conditions(ready=False, reason="PodCompleted" if is_success else "PodFailed"),
        "containerStatuses": [container("trainer", state)],
    } | fields


def beside_sidecar(trainer: dict[str, Any], sidecar: dict[str, Any] = RUNNING, **fields: Any) -> dict[str, Any]:
    """A pod with an injected sidecar container; it runs until all of its containers have terminated."""
    return {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "conditions": conditions(ready=False),
        "containerStatuses": [container("istio-proxy", sidecar), container("trainer", trainer)],
    } | fields


def starting(*init_containers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A pod whose init containers have not all completed."""
    return {
        "phase": "Pending",
        "conditions": conditions(ready=False),
        "initContainerStatuses": list(init_containers),
        "containerStatuses": [container("trainer", WAITING)],
    } | fields


def body(status: dict[str, Any], *, init_containers: tuple[dict[str, Any], ...] = (), **metadata: Any) -> dict[str, Any]:
    """A Pod object of job `j`, node 1, with this status."""
    spec: dict[str, Any] = {"nodeName": "node-1", "restartPolicy": "Never", "containers": [TRAINER, PROXY]}
    if init_containers:
        spec["initContainers"] = list(init_containers)
    return {
        "metadata": {
            "name": "j-1",
            "uid": "u",
            "resourceVersion": "42",
            "creationTimestamp": "2026-01-01T12:00:00Z",
            "labels": {"finetune-operator.io/job": "j", "finetune-operator.io/node-rank": "1"},
            "ownerReferences": [{"uid": "other"}, {"uid": "job-uid", "controller": True}],
        }
        | metadata,
        "spec": spec,
        "status": status,
    }
