"""Condition types, condition reasons and timestamps of a FineTuneJob's status.

Types and reasons are constants because scripts and alerts match on them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

from finetune_operator.api.status import Condition, JobStatus

MAX_MESSAGE_CHARACTERS = 32768  # the API server rejects a longer message, which a pod's answer could contain
ConditionStatus = Literal["True", "False", "Unknown"]


class ConditionType(StrEnum):
    """Types of conditions, in the order in which the status lists them."""

    SUSPENDED = "Suspended"
    QUOTA_RESERVED = "QuotaReserved"
    PODS_READY = "PodsReady"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    DEGRADED = "Degraded"
    CHECKPOINT_HEALTHY = "CheckpointHealthy"
    COMPLETE = "Complete"
    FAILED = "Failed"


class ConditionReason(StrEnum):
    """Reasons that the operator sets; the trainer's reasons are `finetune_trainer.protocol.outcome.Reason`."""

    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    QUEUED = "Queued"
    ADMITTED = "Admitted"
    EVICTED = "Evicted"
    DEACTIVATED = "Deactivated"
    INADMISSIBLE = "Inadmissible"
    KUEUE_NOT_INSTALLED = "KueueNotInstalled"
    PRIORITY_CLASS_NOT_FOUND = "PriorityClassNotFound"
    WORKLOAD_MISMATCH = "WorkloadMismatch"
    RESOURCE_FLAVOR_NOT_FOUND = "ResourceFlavorNotFound"
    PODS_STARTING = "PodsStarting"
    PODS_READY = "PodsReady"
    PODS_NOT_READY = "PodsNotReady"
    SECRET_NOT_FOUND = "SecretNotFound"
    NAME_CONFLICT = "NameConflict"
    PREVIOUS_PODS_TERMINATING = "PreviousPodsTerminating"
    CREATE_REJECTED = "CreateRejected"
    QUOTA_EXCEEDED = "QuotaExceeded"
    VOLUME_NOT_FOUND = "VolumeNotFound"
    PODS_RELEASED = "PodsReleased"
    PENDING_RETRY_LIMIT_EXCEEDED = "PendingRetryLimitExceeded"
    BACKING_OFF = "BackingOff"
    DISRUPTED = "Disrupted"
    NODE_LOST = "NodeLost"
    KUBELET_SILENT = "KubeletSilent"
    POD_DELETED = "PodDeleted"
    DISK_LIMIT_EXCEEDED = "DiskLimitExceeded"
    POD_REJECTED = "PodRejected"
    START_ERROR = "StartError"
    OUTCOME_MISSING = "OutcomeMissing"
    INIT_CONTAINER_FAILED = "InitContainerFailed"
    RECOVERED = "Recovered"
    RESIZING = "Resizing"
    RUNNING_SMALLER = "RunningSmaller"
    ADMITTED_SMALLER = "AdmittedSmaller"
    LIMITED_BY_PROFILE = "LimitedByProfile"
    ALL_NODES = "AllNodes"
    RANKS_RESTARTED = "RanksRestarted"
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    INVALID_SPEC = "InvalidSpec"
    REFUSED_BY_PROFILE = "RefusedByProfile"
    DATA_FINDING = "DataFinding"
    STRAGGLER = "Straggler"
    LOSS_ANOMALY = "LossAnomaly"
    NODE_AVOIDED = "NodeAvoided"
    AVOIDED_NODES_NEEDED = "AvoidedNodesNeeded"
    CHECKPOINT_SAVED = "CheckpointSaved"
    CHECKPOINT_SAVE_FAILED = "CheckpointSaveFailed"
    FINISHED = "Finished"
    POD_FORCE_DELETED = "PodForceDeleted"
    STATUS_UNREADABLE = "StatusUnreadable"


POD_FAILURE_REASONS = (
    ConditionReason.DISRUPTED,
    ConditionReason.NODE_LOST,
    ConditionReason.POD_DELETED,
    ConditionReason.DISK_LIMIT_EXCEEDED,
    ConditionReason.POD_REJECTED,
    ConditionReason.START_ERROR,
    ConditionReason.OUTCOME_MISSING,
    ConditionReason.INIT_CONTAINER_FAILED,
)
"""The reasons of a pod's failure that follow from the pod's status and not from the trainer."""


def format_timestamp(time: datetime) -> str:
    """A time in the format of Kubernetes: RFC 3339, UTC, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str) -> datetime:
    """The time in an RFC 3339 timestamp; without an offset it is in UTC. Raises ValueError for any other text."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def set_condition(
    conditions: Iterable[Condition],
    condition_type: ConditionType,
    status: ConditionStatus,
    reason: str,
    message: str,
    now: datetime,
    generation: int | None,
) -> list[Condition]:
    """A copy of `conditions` with one condition set; its transition time changes only when its status changes."""
    by_type = {condition.type: condition for condition in conditions}
    previous = by_type.get(condition_type)
    transition_time = format_timestamp(now)
    if previous is not None and previous.status == status:
        transition_time = previous.last_transition_time
    by_type[condition_type] = Condition.model_construct(
        type=str(condition_type),
        status=status,
        reason=str(reason),
        message=message[:MAX_MESSAGE_CHARACTERS],
        last_transition_time=transition_time,
        observed_generation=generation,
    )
    return sorted(by_type.values(), key=_position)


def find_condition(conditions: Iterable[Condition], condition_type: ConditionType) -> Condition | None:
    """The condition of one type, or None if it was never set."""
    for condition in conditions:
        if condition.type == condition_type:
            return condition
    return None


def is_true(conditions: Iterable[Condition], condition_type: ConditionType) -> bool:
    """Whether the condition of one type is set and has the status True."""
    condition = find_condition(conditions, condition_type)
    return condition is not None and condition.status == "True"


def is_finished(status: JobStatus) -> bool:
    """Whether the job has ended. Any sign of its end counts, because a finished job must never run again."""
    return (
        status.completion_time is not None
        or status.phase in ("Succeeded", "Failed")
        or is_true(status.conditions, ConditionType.COMPLETE)
        or is_true(status.conditions, ConditionType.FAILED)
    )


def _position(condition: Condition) -> int:
    """Position of a condition in the status; types of other operator versions come last."""
    types = [str(condition_type) for condition_type in ConditionType]
    return types.index(condition.type) if condition.type in types else len(types)
