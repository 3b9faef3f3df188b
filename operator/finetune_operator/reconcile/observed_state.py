"""What one pass sees: the job, its pods and a few facts, all of them plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from finetune_operator import names
from finetune_operator.api import FineTuneJob, JobStatus
from finetune_trainer.protocol.outcome import RunStatus

# Waiting reasons that every healthy pod goes through.
STARTING = frozenset({"ContainerCreating", "PodInitializing"})


@dataclass(frozen=True, slots=True)
class TerminatedState:
    """How the trainer container ended; `reason` is the kubelet's word, `message` the termination message."""

    exit_code: int
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class ReasonMessage:
    """Why something does not go on, in the words of whoever said so."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a job: small, because thousands are held in memory.

    `version` is its resourceVersion; two pods that differ in nothing else need no second look. `deletion_deadline` is set on a
    pod that is being deleted: by then it has to be gone.
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
    ending: TerminatedState | None = None
    disruption: ReasonMessage | None = None
    trouble: ReasonMessage | None = None
    version: int = field(default=0, compare=False)

    @property
    def ended(self) -> bool:
        """Whether its container will not run again."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class MissingSecret:
    """A Secret that a field of the document names and that does not exist."""

    where: str
    name: str


@dataclass(frozen=True, slots=True)
class ObservedState:
    """Everything a pass knows. `job` is None when the document cannot be read; `validation_errors` then says why.

    `unowned_pods` are names of pods of another job that was called the same. `create_error` is what the API server said when
    objects were last created, if it refused.
    """

    name: str
    uid: str
    generation: int
    status: JobStatus
    now: datetime
    job: FineTuneJob | None
    validation_errors: tuple[str, ...] = ()
    pods: tuple[Pod, ...] = ()
    unowned_pods: tuple[str, ...] = ()
    run: RunStatus | None = None
    missing_secrets: tuple[MissingSecret, ...] = ()
    create_error: ReasonMessage | None = None


def moment(text: str) -> datetime:
    """A time as Kubernetes writes it."""
    return datetime.fromisoformat(text)


def read_pod(body: dict[str, Any]) -> Pod:
    """The little that matters of a Pod object."""
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    owners = metadata.get("ownerReferences") or ()
    conditions = {item["type"]: item for item in status.get("conditions") or ()}
    containers = status.get("containerStatuses") or ()
    container: dict[str, Any] = next((item for item in containers if item["name"] == names.CONTAINER), {})
    state = container.get("state") or {}
    deleted = metadata.get("deletionTimestamp")
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        job_uid=next((owner["uid"] for owner in owners if owner.get("controller")), ""),
        index=int((metadata.get("labels") or {}).get(names.NODE_RANK_LABEL, -1)),
        phase=status.get("phase", "Pending"),
        created=moment(metadata["creationTimestamp"]),
        ready=conditions.get("Ready", {}).get("status") == "True",
        deletion_deadline=moment(deleted) if deleted else None,
        node=spec.get("nodeName", ""),
        address=status.get("podIP", ""),
        ending=_ending(state.get("terminated")),
        disruption=_disruption(status, conditions),
        trouble=_trouble(state.get("waiting"), conditions),
        version=int(metadata.get("resourceVersion") or 0),
    )


def _ending(terminated: dict[str, Any] | None) -> TerminatedState | None:
    if not terminated:
        return None
    return TerminatedState(terminated.get("exitCode", 1), terminated.get("reason", ""), terminated.get("message", ""))


def _disruption(status: dict[str, Any], conditions: dict[str, dict[str, Any]]) -> ReasonMessage | None:
    target = conditions.get("DisruptionTarget", {})
    if target.get("status") == "True":
        return ReasonMessage(target.get("reason", "DisruptionTarget"), target.get("message", ""))
    # A reason on the pod itself (Evicted, NodeLost, Terminated, OutOfcpu ...) is never the container's doing.
    if status.get("phase") == "Failed" and status.get("reason"):
        return ReasonMessage(status["reason"], status.get("message", ""))
    return None


def _trouble(waiting: dict[str, Any] | None, conditions: dict[str, dict[str, Any]]) -> ReasonMessage | None:
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return ReasonMessage(scheduled.get("reason", "Unschedulable"), scheduled.get("message", ""))
    if waiting and waiting.get("reason") not in STARTING:
        return ReasonMessage(waiting.get("reason", "Waiting"), waiting.get("message", ""))
    return None
