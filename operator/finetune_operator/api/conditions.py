"""Condition types and reasons of a FineTuneJob. People and scripts match on them, so they are constants."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Literal

from finetune_operator.api import Condition

ConditionStatus = Literal["True", "False", "Unknown"]


class ConditionType(StrEnum):
    """What a condition is about; in this order they stand in the status."""

    SUSPENDED = "Suspended"
    PODS_READY = "PodsReady"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    CHECKPOINT_HEALTHY = "CheckpointHealthy"
    COMPLETE = "Complete"
    FAILED = "Failed"


class ConditionReason(StrEnum):
    """Reasons of the operator's own; those of a run are `finetune_trainer.protocol.outcome.Reason`."""

    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    PODS_STARTING = "PodsStarting"
    PODS_READY = "PodsReady"
    PODS_NOT_READY = "PodsNotReady"
    SECRET_NOT_FOUND = "SecretNotFound"
    NAME_TAKEN = "NameTaken"
    EARLIER_JOB_STOPPING = "EarlierJobStopping"
    CREATION_REFUSED = "CreationRefused"
    BACKING_OFF = "BackingOff"
    DISRUPTED = "Disrupted"
    POD_DELETED = "PodDeleted"
    RECOVERED = "Recovered"
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    DOCUMENT_UNREADABLE = "DocumentUnreadable"
    DATA_FINDING = "DataFinding"
    CHECKPOINT_STORED = "CheckpointStored"
    CHECKPOINT_NOT_STORED = "CheckpointNotStored"
    FINISHED = "Finished"
    POD_STUCK = "PodStuck"


def timestamp(moment: datetime) -> str:
    """A moment as Kubernetes writes it: RFC 3339 in UTC, whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def set_condition(
    conditions: Iterable[Condition],
    kind: ConditionType,
    state: ConditionStatus,
    reason: str,
    message: str,
    now: datetime,
    generation: int | None,
) -> list[Condition]:
    """`conditions` with one set; its transition time stays as long as its status does."""
    by_type = {condition.type: condition for condition in conditions}
    old = by_type.get(kind)
    since = old.last_transition_time if old is not None and old.status == state else timestamp(now)
    by_type[kind] = Condition.model_construct(
        type=str(kind),
        status=state,
        reason=str(reason),
        message=message,
        last_transition_time=since,
        observed_generation=generation,
    )
    order = [str(item) for item in ConditionType]
    return sorted(by_type.values(), key=lambda item: order.index(item.type) if item.type in order else len(order))


def find_condition(conditions: Iterable[Condition], kind: ConditionType) -> Condition | None:
    """The condition of one type, if it was ever set."""
    return next((condition for condition in conditions if condition.type == kind), None)


def is_true(conditions: Iterable[Condition], kind: ConditionType) -> bool:
    """Whether a condition is set and true."""
    found = find_condition(conditions, kind)
    return found is not None and found.status == "True"
