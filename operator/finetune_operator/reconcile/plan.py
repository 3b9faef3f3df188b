"""The result of a reconcile: the status to write, the actions to execute after it, and the events to emit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from finetune_operator.api import FineTuneJob, JobStatus
from finetune_operator.api.conditions import ConditionStatus, ConditionType, set_condition
from finetune_operator.reconcile.observed_pod import Pod
from finetune_operator.reconcile.observed_state import ObservedState, is_retained
from finetune_operator.reconcile.observed_workload import WorkloadCondition

MIN_REQUEUE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class CreateJobResources:
    """Create what the pods of a job need: the Service of its namespace, and its NetworkPolicy and its PodGroup, if it has them.

    `may_exist` is true if the latter were created before: a quota that they use up rejects a second request for them.
    """

    may_exist: bool = False


@dataclass(frozen=True, slots=True)
class CreatePod:
    """Create the pod of one node, under its alternate name if the failed pod with the other name is kept.

    `nodes` is the number of nodes that the run uses. `peer` is the name of a pod that the new one will meet, and whose image
    and document it gets, because another version of the operator may have created it; empty if there is none. The pod must
    not run on `avoided_nodes`, and on `last_resort_nodes` only if no other node has room.
    """

    index: int
    nodes: int
    is_alternate: bool = False
    peer: str = ""
    avoided_nodes: tuple[str, ...] = ()
    last_resort_nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UpdateNetworkPolicy:
    """Make the NetworkPolicy of pods that exist already the one of the current settings."""


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete a pod by name and UID, so that a replacement of the same name is not deleted.

    `force` deletes the pod without a confirmation of its node. `grace_seconds` replaces the grace period of the pod.
    """

    name: str
    uid: str
    force: bool = False
    grace_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Delete the job and all objects that it owns."""


@dataclass(frozen=True, slots=True)
class EnsureWorkload:
    """Create the Kueue Workload of the job, or update its spec."""


@dataclass(frozen=True, slots=True)
class SetWorkloadActive:
    """Let Kueue consider the Workload, or make it evict the job."""

    name: str
    active: bool


@dataclass(frozen=True, slots=True)
class UpdateWorkloadStatus:
    """Write the status of the Workload, unless it has another resourceVersion by now."""

    name: str
    resource_version: int
    conditions: tuple[WorkloadCondition, ...]
    releases_quota: bool
    past_execution_seconds: int


@dataclass(frozen=True, slots=True)
class DeleteWorkload:
    """Delete the Workload of a job that left its queue."""

    name: str
    uid: str


WorkloadAction = EnsureWorkload | SetWorkloadActive | UpdateWorkloadStatus | DeleteWorkload
Action = CreateJobResources | CreatePod | UpdateNetworkPolicy | DeletePod | DeleteJob | WorkloadAction
EventType = Literal["Normal", "Warning"]


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes event about the job."""

    type: EventType
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The result of a reconcile; `requeue_after` is in seconds.

    `is_urgent` is true if the status changes in what a restarted operator could not find out, such as a count of failures.
    `is_progress_only` is true if it changes in nothing but the progress of the run, which may be written some seconds later.
    `needs_consistent_read` is true if the plan counts or keeps a pod that ended, or deletes a second pod of a node: it must be
    made again from a consistent read of the pods, because the pod watch may lag behind the job watch.
    """

    status: JobStatus
    actions: tuple[Action, ...]
    events: tuple[Event, ...]
    requeue_after: float | None
    is_urgent: bool
    needs_consistent_read: bool
    is_progress_only: bool


@dataclass(frozen=True, slots=True)
class ReconcileTimings:
    """Delays of the policies, in seconds."""

    backoff_initial: float = 10.0
    backoff_max: float = 300.0
    backoff_reset: float = 600.0  # training time after which restarts are no longer consecutive
    pending_backoff_initial: float = 30.0  # until released pods are created again
    pending_backoff_max: float = 1800.0
    completion_grace: float = 30.0  # time for the other pods to exit after pod 0 has completed the run
    force_delete_after: float = 30.0  # from the end of a pod's grace period
    recheck_interval: float = 10.0  # at first, between checks of a condition that no watch reports, such as a missing Secret
    recheck_max: float = 300.0
    start_check_after: float = 20.0  # from a pod's creation until the kubelet's warnings about it are read
    start_check_interval: float = 60.0  # until they are read again
    node_lost_seconds: float = 30.0  # until a pod on a lost node is replaced, for jobs without runPolicy.nodeLostSeconds
    node_check_interval: float = 30.0  # between checks of the nodes of pods that are not ready


class PlanBuilder:
    """Collects the plan of one reconcile: policies read `observed`, update `status` and add actions and events."""

    def __init__(self, observed: ObservedState, timings: ReconcileTimings) -> None:
        self.observed = observed
        self.timings = timings
        self.status = observed.status
        self.owns_status = True  # False if another controller writes the status of the job
        self.force_write = False  # the status holds data that cannot be observed again
        self.needs_consistent_read = False
        self._actions: list[Action] = []
        self._events: list[Event] = []
        self._requeue_after: float | None = None

    @property
    def job(self) -> FineTuneJob:
        """The validated job. Only policies that run after `validation.fail_invalid_document` may use it."""
        assert self.observed.job is not None, "the spec is invalid: this policy must run after the validation policy"
        return self.observed.job

    @property
    def all_pods(self) -> tuple[Pod, ...]:
        """The job's pods, including the failed ones that are kept for their logs."""
        return (*self.observed.pods, *self.observed.retained_pods)

    @property
    def pods(self) -> list[Pod]:
        """The job's pods without the failed ones that are kept for their logs, including those retained by this reconcile."""
        return [pod for pod in self.all_pods if not is_retained(self.status, pod)]

    @property
    def counted_pods(self) -> set[str]:
        """UIDs of terminating or failed pods that the restart counts already include, or exclude for good."""
        return set(self.status.counted_terminated_pods)

    def update_status(self, **fields: Any) -> None:
        """Set fields of the status."""
        self.status = self.status.model_copy(update=fields)

    def set_condition(
        self, condition_type: ConditionType, status: bool | Literal["Unknown"], reason: str, message: str
    ) -> None:
        """Set a condition of the status."""
        status_text: ConditionStatus = "Unknown"
        if status != "Unknown":
            status_text = "True" if status else "False"
        observed = self.observed
        conditions = set_condition(
            self.status.conditions, condition_type, status_text, reason, message, observed.now, observed.generation
        )
        self.update_status(conditions=conditions)

    def add_action(self, action: Action) -> None:
        """Add an action; a repeated action is executed once."""
        self._actions.append(action)

    def emit_event(self, event_type: EventType, reason: str, message: str) -> None:
        """Add an event."""
        self._events.append(Event(event_type, str(reason), message))

    def requeue_after(self, seconds: float) -> None:
        """Reconcile the job again after this time, or earlier if another policy asks for it."""
        seconds = max(seconds, MIN_REQUEUE_SECONDS)
        if self._requeue_after is None or seconds < self._requeue_after:
            self._requeue_after = seconds

    def requeue_at(self, time: datetime) -> bool:
        """Reconcile the job again at this time. Returns True, and requeues nothing, if the time has already passed."""
        remaining = (time - self.observed.now) / timedelta(seconds=1)
        if remaining <= 0:
            return True
        self.requeue_after(remaining)
        return False

    def mark_as_counted(self, pod: Pod) -> None:
        """Record the UID of a pod in the status, so that its end is never counted again."""
        if pod.uid not in self.counted_pods:
            self.update_status(counted_terminated_pods=[*self.status.counted_terminated_pods, pod.uid])

    def mark_for_deletion(self, *pods: Pod, force: bool = False, grace_seconds: int | None = None) -> None:
        """Delete pods and record their UIDs in the status, so that their termination is never counted as a failure.

        `force` does not wait for their nodes. The first call for a pod decides about its grace period.
        """
        counted = self.counted_pods
        added = [pod.uid for pod in pods if pod.uid not in counted]
        self.update_status(counted_terminated_pods=[*self.status.counted_terminated_pods, *added])
        for pod in pods:
            if force:
                self.add_action(DeletePod(pod.name, pod.uid, force=True))
            elif not pod.is_being_deleted and not self._deletes(pod):
                self.add_action(DeletePod(pod.name, pod.uid, grace_seconds=grace_seconds))

    def _deletes(self, pod: Pod) -> bool:
        return any(isinstance(action, DeletePod) and action.uid == pod.uid for action in self._actions)

    def build(self) -> Plan:
        """The finished plan."""
        observed = self.observed
        if self.owns_status and self.status.observed_generation != observed.generation:
            self.update_status(observed_generation=observed.generation)
        has_urgent_change = _without_volatile_fields(self.status) != _without_volatile_fields(observed.status)
        return Plan(
            status=self.status,
            actions=tuple(dict.fromkeys(self._actions)),
            events=tuple(self._events),
            requeue_after=self._requeue_after,
            is_urgent=self.force_write or has_urgent_change,
            needs_consistent_read=self.needs_consistent_read or _pod_counts(self.status) != _pod_counts(observed.status),
            is_progress_only=_without_progress(self.status) == _without_progress(observed.status),
        )


def _pod_counts(status: JobStatus) -> tuple[int, list[str]]:
    return status.restarts.total, status.retained_pods


def _without_progress(status: JobStatus) -> JobStatus:
    """A copy of the status without the fields that change with every step and every checkpoint of a healthy run."""
    conditions = []
    for condition in status.conditions:
        if condition.type == ConditionType.CHECKPOINT_HEALTHY:  # its message names the step of the newest checkpoint
            conditions.append(condition.model_copy(update={"message": ""}))
        else:
            conditions.append(condition)
    return status.model_copy(update={"conditions": conditions, "progress": None, "eta": None, "checkpoint": None})


def _without_volatile_fields(status: JobStatus) -> JobStatus:
    """A copy of the status without the fields that every operator computes anew from the cluster."""
    conditions = []
    for condition in status.conditions:
        conditions.append(condition.model_copy(update={"message": "", "reason": "", "observed_generation": None}))
    return status.model_copy(
        update={
            "conditions": conditions,
            "reason": None,
            "workers": None,
            "progress": None,
            "eta": None,
            "checkpoint": None,
            "observed_generation": None,
        }
    )
