"""The fields of a trainer pod that the policies use, parsed from a Pod object of the API server."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from finetune_operator import names
from finetune_operator.api.conditions import parse_timestamp
from finetune_operator.reconcile.observed_containers import (
    ContainerStates,
    FailedContainer,
    ReasonMessage,
    TerminatedState,
    parse_containers,
)

__all__ = ["FailedContainer", "InvalidPodError", "Pod", "PodCondition", "ReasonMessage", "TerminatedState", "parse_pod"]


class InvalidPodError(ValueError):
    """A pod with the label of a job that the operator cannot have created, such as one whose node rank is no number."""


READINESS_GATES = "ReadinessGatesNotReady"


class PodCondition(NamedTuple):
    """A condition in a pod's status."""

    type: str
    status: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    """The fields of a trainer pod that the operator uses; few, because thousands of pods are held in memory.

    `resource_version` is not compared, so pods that differ only in their resourceVersion are equal and need no reconcile.
    `running`, `ready` and `terminated` are about the trainer container: what sidecars do is not the run's concern. `waiting` is
    the reason why the pod does not start, `initializing` the init container that runs before the trainer container, and
    `failed_init_container` the one that failed. `has_unfinished_sidecar` is true if a sidecar outlives the trainer.
    `disruption` is the reason why Kubernetes stopped or rejected the pod, and `conditions` are the conditions of a pod that has
    ended or ends. `node_lost_since` is the time at which Kubernetes marked the pod because its node was not ready.
    `deletion_deadline` is set on a pod that is being deleted, to the end of its grace period.
    `revision` and `generation` are those of the job when the pod was created, and `nodes` is the number of nodes that the run
    had then, 0 if it is unknown.
    """

    name: str
    uid: str
    job_uid: str
    index: int
    phase: str
    created: datetime
    running: bool = False
    ready: bool = False
    deletion_deadline: datetime | None = None
    node: str = ""
    address: str = ""
    terminated: TerminatedState | None = None
    disruption: ReasonMessage | None = None
    waiting: ReasonMessage | None = None
    initializing: str = ""
    failed_init_container: FailedContainer | None = None
    has_unfinished_sidecar: bool = False
    conditions: tuple[PodCondition, ...] = ()
    node_lost_since: datetime | None = None
    revision: str = ""
    generation: int = 0
    nodes: int = 0
    resource_version: int = field(default=0, compare=False)

    @property
    def is_finished(self) -> bool:
        """Whether the trainer container has terminated, or can no longer start; sidecars may still run."""
        return self.terminated is not None or self.has_stopped

    @property
    def has_stopped(self) -> bool:
        """Whether all containers have terminated, so that the pod holds no resources of its node."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def is_being_deleted(self) -> bool:
        """Whether the pod has a deletion timestamp."""
        return self.deletion_deadline is not None

    @property
    def is_starting_containers(self) -> bool:
        """Whether the kubelet mounts volumes, sets up the network or pulls images; the status does not tell which."""
        is_waiting = self.waiting is not None or bool(self.initializing)
        return self.phase == "Pending" and bool(self.node) and not is_waiting and not self.is_being_deleted


def parse_pod(body: dict[str, Any]) -> Pod:
    """The `Pod` for a Pod object of the API server. Raises InvalidPodError if the operator cannot have created it."""
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    conditions = {condition.get("type"): condition for condition in status.get("conditions") or ()}
    containers = parse_containers(spec, status)
    disruption = _disruption(status, conditions)
    deletion_timestamp = metadata.get("deletionTimestamp")
    annotations = metadata.get("annotations") or {}
    phase = status.get("phase") or "Pending"
    has_ended = phase == "Failed" or containers.terminated or disruption or deletion_timestamp
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        job_uid=_controller_uid(metadata),
        index=_node_rank(metadata),
        phase=phase,
        created=parse_timestamp(metadata["creationTimestamp"]),
        running=containers.is_running,
        ready=_is_ready(containers, conditions),
        deletion_deadline=parse_timestamp(deletion_timestamp) if deletion_timestamp else None,
        node=spec.get("nodeName") or "",
        address=status.get("podIP") or "",
        terminated=containers.terminated,
        disruption=disruption,
        waiting=_unschedulable(conditions) or containers.waiting,
        initializing=containers.initializing,
        failed_init_container=containers.failed_init_container,
        has_unfinished_sidecar=containers.has_unfinished_sidecar,
        conditions=_pod_conditions(status) if has_ended else (),
        node_lost_since=_node_lost_since(conditions),
        revision=(metadata.get("labels") or {}).get(names.REVISION_LABEL, ""),
        generation=_integer(annotations.get(names.GENERATION_ANNOTATION)),
        nodes=_integer(annotations.get(names.NODES_ANNOTATION)),
        resource_version=int(metadata.get("resourceVersion") or 0),
    )


def _node_rank(metadata: dict[str, Any]) -> int:
    rank = (metadata.get("labels") or {}).get(names.NODE_RANK_LABEL)
    if rank is None or not (rank.isascii() and rank.isdecimal()):
        raise InvalidPodError(f"its label {names.NODE_RANK_LABEL} is {rank!r} and not the number of a node")
    return int(rank)


def _integer(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


def _controller_uid(metadata: dict[str, Any]) -> str:
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            return str(owner.get("uid") or "")
    return ""


def _is_ready(containers: ContainerStates, conditions: dict[str, dict[str, Any]]) -> bool:
    """Whether the trainer container is ready and its node reachable.

    Of a pod with a sidecar that is not ready, the state of the trainer container decides. Ready alone is False on a lost node,
    where the states of the containers are those of an earlier time.
    """
    if conditions.get("Ready", {}).get("status") == "True":
        return True
    return containers.is_ready and conditions.get("ContainersReady", {}).get("status") == "False"


def _disruption(status: dict[str, Any], conditions: dict[str, dict[str, Any]]) -> ReasonMessage | None:
    target = conditions.get("DisruptionTarget", {})
    if target.get("status") == "True":
        return ReasonMessage(target.get("reason") or "DisruptionTarget", target.get("message") or "")
    # A reason in the pod's own status (Evicted, NodeLost, Terminated, OutOfcpu ...) is never caused by the container.
    if status.get("phase") == "Failed" and status.get("reason"):
        return ReasonMessage(status["reason"], status.get("message") or "")
    return None


def _node_lost_since(conditions: dict[str, dict[str, Any]]) -> datetime | None:
    """When the node lifecycle controller marked a pod as not ready, because its node was not; None if it did not.

    The kubelet sets Ready and ContainersReady together, unless readiness gates are open; that controller sets Ready only.
    """
    ready, containers_ready = conditions.get("Ready", {}), conditions.get("ContainersReady", {})
    if ready.get("status") != "False" or containers_ready.get("status") != "True" or ready.get("reason") == READINESS_GATES:
        return None
    time = ready.get("lastTransitionTime")
    return parse_timestamp(time) if time else None


def _unschedulable(conditions: dict[str, dict[str, Any]]) -> ReasonMessage | None:
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") != "False":
        return None
    return ReasonMessage(scheduled.get("reason") or "Unschedulable", scheduled.get("message") or "")


def _pod_conditions(status: dict[str, Any]) -> tuple[PodCondition, ...]:
    return tuple(
        PodCondition(condition.get("type") or "", condition.get("status") or "", condition.get("reason") or "")
        for condition in status.get("conditions") or ()
    )
