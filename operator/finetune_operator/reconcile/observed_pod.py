"""The fields of a trainer pod that the policies use, parsed from a Pod object of the API server."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from finetune_operator import names
from finetune_operator.api.conditions import parse_timestamp

# Waiting reasons of every healthy pod that starts.
STARTING = frozenset({"ContainerCreating", "PodInitializing"})


@dataclass(frozen=True, slots=True)
class TerminatedState:
    """How the trainer container terminated; `reason` is set by the kubelet, `message` is the termination message."""

    exit_code: int
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class ReasonMessage:
    """A reason (constant in CamelCase) and its message, as reported by Kubernetes or by the operator."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Pod:
    """The fields of a trainer pod that the operator uses; few, because thousands of pods are held in memory.

    `resource_version` is not compared, so pods that differ only in their resourceVersion are equal and need no reconcile.
    `terminated` is the terminated state of the trainer container, `waiting` the reason why the pod does not start,
    `disruption` the reason why Kubernetes stopped the pod. `deletion_deadline` is set on a pod that is being deleted, to the
    end of its grace period.
    """

    name: str
    uid: str
    job_uid: str
    index: int
    phase: str
    created: datetime
    ready: bool = False
    deletion_deadline: datetime | None = None
    node: str = ""
    address: str = ""
    terminated: TerminatedState | None = None
    disruption: ReasonMessage | None = None
    waiting: ReasonMessage | None = None
    resource_version: int = field(default=0, compare=False)

    @property
    def is_finished(self) -> bool:
        """Whether the containers of the pod have terminated and will not run again."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def is_being_deleted(self) -> bool:
        """Whether the pod has a deletion timestamp."""
        return self.deletion_deadline is not None


def parse_pod(body: dict[str, Any]) -> Pod:
    """The `Pod` for a Pod object of the API server."""
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    container_state = _trainer_container(status).get("state") or {}
    deletion_timestamp = metadata.get("deletionTimestamp")
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        job_uid=_controller_uid(metadata),
        index=int((metadata.get("labels") or {}).get(names.NODE_RANK_LABEL, -1)),
        phase=status.get("phase", "Pending"),
        created=parse_timestamp(metadata["creationTimestamp"]),
        ready=conditions.get("Ready", {}).get("status") == "True",
        deletion_deadline=parse_timestamp(deletion_timestamp) if deletion_timestamp else None,
        node=spec.get("nodeName", ""),
        address=status.get("podIP", ""),
        terminated=_terminated_state(container_state.get("terminated")),
        disruption=_disruption(status, conditions),
        waiting=_waiting_reason(container_state.get("waiting"), conditions),
        resource_version=int(metadata.get("resourceVersion") or 0),
    )


def _controller_uid(metadata: dict[str, Any]) -> str:
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            return str(owner["uid"])
    return ""


def _trainer_container(status: dict[str, Any]) -> dict[str, Any]:
    """The status of the trainer container; empty before the kubelet has reported it."""
    for container in status.get("containerStatuses") or ():
        if container["name"] == names.CONTAINER:
            result: dict[str, Any] = container
            return result
    return {}


def _terminated_state(terminated: dict[str, Any] | None) -> TerminatedState | None:
    if not terminated:
        return None
    return TerminatedState(terminated.get("exitCode", 1), terminated.get("reason", ""), terminated.get("message", ""))


def _disruption(status: dict[str, Any], conditions: dict[str, dict[str, Any]]) -> ReasonMessage | None:
    target = conditions.get("DisruptionTarget", {})
    if target.get("status") == "True":
        return ReasonMessage(target.get("reason", "DisruptionTarget"), target.get("message", ""))
    # A reason in the pod's own status (Evicted, NodeLost, Terminated, OutOfcpu ...) is never caused by the container.
    if status.get("phase") == "Failed" and status.get("reason"):
        return ReasonMessage(status["reason"], status.get("message", ""))
    return None


def _waiting_reason(waiting: dict[str, Any] | None, conditions: dict[str, dict[str, Any]]) -> ReasonMessage | None:
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return ReasonMessage(scheduled.get("reason", "Unschedulable"), scheduled.get("message", ""))
    if waiting and waiting.get("reason") not in STARTING:
        return ReasonMessage(waiting.get("reason", "Waiting"), waiting.get("message", ""))
    return None
