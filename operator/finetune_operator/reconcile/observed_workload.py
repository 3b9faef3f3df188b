"""The fields of a Kueue Workload that the policies use, parsed from an object of the API server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from finetune_operator import names
from finetune_operator.api.conditions import format_timestamp


@dataclass(frozen=True, slots=True)
class WorkloadCondition:
    """A condition of a Workload."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    last_transition_time: str
    observed_generation: int | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """A job in Kueue's terms: what it needs, and whether it is admitted.

    `spec_hash` identifies the spec that the operator wrote last. `deactivated_by_job` tells a suspension of the job from a
    deactivation by Kueue or an administrator. `pods` is the number of pods that are admitted; `flavors` and `pod_updates`
    decide where they run. `resources` are those of each container, by its name, for which it has or wants quota.
    `past_execution_seconds` is the time for which earlier admissions lasted. `resource_version` is not
    compared.
    """

    name: str
    uid: str
    job_uid: str
    generation: int
    queue: str
    spec_hash: str
    active: bool = True
    deactivated_by_job: bool = False
    conditions: tuple[WorkloadCondition, ...] = ()
    cluster_queue: str = ""
    pods: int = 0
    flavors: tuple[str, ...] = ()
    pod_updates: tuple[dict[str, Any], ...] = ()
    resources: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    past_execution_seconds: int = 0
    resource_version: int = field(default=0, compare=False)

    def condition(self, condition_type: str) -> WorkloadCondition | None:
        """The condition of one type, or None if it was never set."""
        return next((condition for condition in self.conditions if condition.type == condition_type), None)

    def is_true(self, condition_type: str) -> bool:
        """Whether the condition of one type is set and has the status True."""
        condition = self.condition(condition_type)
        return condition is not None and condition.status == "True"

    @property
    def has_quota(self) -> bool:
        """Whether a ClusterQueue has reserved quota for the job."""
        return self.is_true("QuotaReserved")

    @property
    def is_evicted(self) -> bool:
        """Whether the job has to stop and give its quota back."""
        return self.is_true("Evicted")

    @property
    def is_finished(self) -> bool:
        """Whether Kueue no longer considers the Workload."""
        return self.is_true("Finished")

    @property
    def may_run(self) -> bool:
        """Whether the pods of the job may exist."""
        return self.active and self.is_true("Admitted") and not self.is_evicted and not self.is_finished

    def with_condition(
        self, condition_type: str, status: Literal["True", "False"], reason: str, message: str, now: datetime
    ) -> Workload:
        """A copy with one condition set; its transition time changes only when its status changes."""
        previous = self.condition(condition_type)
        time = format_timestamp(now)
        if previous is not None and previous.status == status:
            time = previous.last_transition_time
        condition = WorkloadCondition(condition_type, status, reason, message, time, self.generation)
        kept = [item if item.type != condition_type else condition for item in self.conditions]
        return replace(self, conditions=tuple(kept if previous is not None else [*kept, condition]))


def parse_workload(body: dict[str, Any]) -> Workload:
    """The `Workload` for an object of the API server."""
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    annotations, admission = metadata.get("annotations") or {}, status.get("admission") or {}
    assignments = admission.get("podSetAssignments") or ()
    flavors = dict.fromkeys(name for item in assignments for name in (item.get("flavors") or {}).values())
    return Workload(
        name=metadata["name"],
        uid=metadata["uid"],
        job_uid=next((owner["uid"] for owner in metadata.get("ownerReferences") or () if owner.get("controller")), ""),
        generation=metadata.get("generation", 1),
        queue=spec.get("queueName", ""),
        spec_hash=annotations.get(names.SPEC_HASH_ANNOTATION, ""),
        active=spec.get("active", True),
        deactivated_by_job=annotations.get(names.SUSPENDED_ANNOTATION) == "true",
        conditions=tuple(_conditions(status.get("conditions") or ())),
        cluster_queue=admission.get("clusterQueue", ""),
        pods=sum(item.get("count") or 0 for item in assignments),
        flavors=tuple(flavors),
        pod_updates=tuple(
            update for check in status.get("admissionChecks") or () for update in check.get("podSetUpdates") or ()
        ),
        resources={item["name"]: item.get("resources") or {} for item in _containers(spec)},
        past_execution_seconds=status.get("accumulatedPastExecutionTimeSeconds", 0),
        resource_version=int(metadata.get("resourceVersion") or 0),
    )


def _containers(spec: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for pod_set in spec.get("podSets") or ():
        pod = pod_set["template"]["spec"]
        yield from pod.get("initContainers") or ()
        yield from pod["containers"]


def _conditions(items: Iterable[dict[str, Any]]) -> Iterable[WorkloadCondition]:
    for item in items:
        yield WorkloadCondition(
            type=item["type"],
            status=item["status"],
            reason=item.get("reason", ""),
            message=item.get("message", ""),
            last_transition_time=item["lastTransitionTime"],
            observed_generation=item.get("observedGeneration"),
        )
