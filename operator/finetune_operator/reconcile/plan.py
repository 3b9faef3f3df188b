"""What one pass decides: a status to write, then actions, then events for people."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from finetune_operator.api import JobStatus
from finetune_operator.api.conditions import ConditionStatus, ConditionType, set_condition
from finetune_operator.reconcile.observed_state import ObservedState, Pod


@dataclass(frozen=True, slots=True)
class CreateJobResources:
    """The Service and the ConfigMap; they come before pods."""


@dataclass(frozen=True, slots=True)
class CreatePod:
    """The pod of one node."""

    index: int


@dataclass(frozen=True, slots=True)
class DeletePod:
    """By UID, so that a pod that replaced it meanwhile is safe. `force` does not wait for its node."""

    name: str
    uid: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """The job with all that it owns."""


Action = CreateJobResources | CreatePod | DeletePod | DeleteJob


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes event."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The result of a pass. `urgent` is false when the status differs in nothing that cannot wait some seconds."""

    status: JobStatus
    actions: tuple[Action, ...]
    notes: tuple[Event, ...]
    requeue_after: float | None
    urgent: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """Times of the policies, seconds."""

    backoff_first: float = 10.0
    backoff_most: float = 300.0
    quiet: float = 600.0
    leftover: float = 30.0
    stuck: float = 30.0
    look_again: float = 10.0


class PlanBuilder:
    """A plan in the making: policies read `seen`, change `status` and add actions, one after the other."""

    def __init__(self, seen: ObservedState, limits: Limits) -> None:
        self.seen = seen
        self.limits = limits
        self.status = seen.status
        self.must_not_wait = False  # the status carries what cannot be seen again
        self._actions: list[Action] = []
        self._notes: list[Event] = []
        self._requeue_after: float | None = None

    @property
    def counted(self) -> set[str]:
        """UIDs of pods that have to go and are counted already."""
        return set(self.status.counted_terminated_pods)

    def update(self, **fields: Any) -> None:
        """Change fields of the status."""
        self.status = self.status.model_copy(update=fields)

    def condition(self, kind: ConditionType, state: bool | ConditionStatus, reason: str, message: str) -> None:
        """Set a condition."""
        word: ConditionStatus = state if isinstance(state, str) else "True" if state else "False"
        conditions = set_condition(self.status.conditions, kind, word, reason, message, self.seen.now, self.seen.generation)
        self.update(conditions=conditions)

    def act(self, action: Action) -> None:
        """Add an action."""
        self._actions.append(action)

    def note(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Add an event."""
        self._notes.append(Event(kind, str(reason), message))

    def requeue_after_seconds(self, seconds: float) -> None:
        """Look again after so many seconds, or earlier."""
        seconds = max(seconds, 0.05)
        self._requeue_after = seconds if self._requeue_after is None else min(seconds, self._requeue_after)

    def requeue_at(self, when: datetime) -> bool:
        """Look again at a moment; True if it has passed already."""
        left = (when - self.seen.now) / timedelta(seconds=1)
        if left <= 0:
            return True
        self.requeue_after_seconds(left)
        return False

    def mark_for_deletion(self, *pods: Pod) -> None:
        """Have pods deleted, remembered by UID so that their end is never taken for a failure."""
        known = self.counted
        self.update(
            counted_terminated_pods=[*self.status.counted_terminated_pods, *(pod.uid for pod in pods if pod.uid not in known)]
        )
        for pod in pods:
            if pod.deletion_deadline is None:
                self.act(DeletePod(pod.name, pod.uid))

    def plan(self) -> Plan:
        """What was decided."""
        if self.status != self.seen.status and self.status.observed_generation != self.seen.generation:
            self.update(observed_generation=self.seen.generation)
        return Plan(
            status=self.status,
            actions=tuple(dict.fromkeys(self._actions)),
            notes=tuple(self._notes),
            requeue_after=self._requeue_after,
            urgent=self.must_not_wait or _hard(self.status) != _hard(self.seen.status),
        )


def _hard(status: JobStatus) -> JobStatus:
    """A status without what changes all the time: two that are equal in this differ in nothing that is urgent."""
    conditions = [
        item.model_copy(update={"message": "", "reason": "", "observed_generation": None}) for item in status.conditions
    ]
    return status.model_copy(
        update={
            "conditions": conditions,
            "workers": None,
            "progress": None,
            "eta": None,
            "checkpoint": None,
            "observed_generation": None,
        }
    )
