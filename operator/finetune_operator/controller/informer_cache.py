"""The informer cache: the newest known state of all jobs and pods, filled by the watches and by responses to writes."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from finetune_operator import names
from finetune_operator.api import Condition, FineTuneJob, JobStatus
from finetune_operator.api.conditions import is_finished
from finetune_operator.client.types import JobKey, ListSnapshot
from finetune_operator.controller.job_document import JobDocument, queue_labels
from finetune_operator.profiles import Profiles
from finetune_operator.reconcile import InvalidPodError, Pod, ReasonMessage, Workload, parse_pod, parse_workload
from finetune_trainer.config import explain

NO_PROFILES = Profiles()
MAX_REMEMBERED_UIDS = 4096
CONDITION_FIELDS = frozenset(Condition.model_json_schema(by_alias=True)["properties"])
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CachedJob:
    """A FineTuneJob.

    `status` is None if another version of the operator has written a status that this version cannot read; `status_error`
    says why. `foreign_condition_fields` are the fields of conditions, by type, that this version does not know.
    """

    key: JobKey
    uid: str
    resource_version: int
    generation: int
    is_being_deleted: bool
    created: str
    status: JobStatus | None
    source: JobDocument
    queue_labels: dict[str, str] = field(default_factory=dict)
    status_error: str = ""
    foreign_condition_fields: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def document(self) -> FineTuneJob | None:
        """The validated document; None if its spec is invalid."""
        return self.source.validated.document

    @property
    def validation_errors(self) -> tuple[str, ...]:
        """The errors of the spec."""
        return self.source.validated.errors

    @property
    def is_refused_by_profile(self) -> bool:
        """Whether these errors are an administrator's limits, which the spec is valid without."""
        return self.source.validated.is_refused_by_profile

    @property
    def is_active(self) -> bool:
        """Whether the job has not ended, as far as its status can be read."""
        return self.status is not None and not is_finished(self.status)


class InformerCache:
    """Jobs and pods by job key.

    An older resourceVersion never replaces a newer one, and a deleted pod never reappears.
    """

    def __init__(self, profiles: Profiles = NO_PROFILES) -> None:
        self._profiles = profiles
        self.jobs: dict[JobKey, CachedJob] = {}
        self._active: set[JobKey] = set()
        self._pods: dict[JobKey, dict[str, Pod]] = {}
        self._workloads: dict[JobKey, dict[str, Workload]] = {}
        self._deleted_uids: OrderedDict[str, None] = OrderedDict()
        self.workload_errors: dict[str | None, ReasonMessage | None] = {}
        """For each watched namespace (None: the cluster) why its Workloads cannot be read; absent before the first list."""
        self._foreign_uids: OrderedDict[str, None] = OrderedDict()

    @property
    def active_jobs(self) -> int:
        """Number of jobs that have not ended."""
        return len(self._active)

    def pods(self, key: JobKey) -> tuple[Pod, ...]:
        """All pods labeled with the name of a job, including those of an earlier job of this name."""
        return tuple(self._pods.get(key, {}).values())

    def all_pods(self) -> Iterator[tuple[JobKey, Pod]]:
        """Every pod with the key of its job."""
        for key, pods in self._pods.items():
            for pod in pods.values():
                yield key, pod

    def put_job(self, body: dict[str, Any]) -> CachedJob:
        """Store a job. Returns the stored job, which is the previous one if that is newer."""
        key = job_key(body)
        previous = self.jobs.get(key)
        if previous is not None and previous.resource_version >= _resource_version(body):
            return previous
        job = _parse_job(key, body, previous, self._profiles)
        self.jobs[key] = job
        if job.is_active:
            self._active.add(key)
        else:
            self._active.discard(key)
        return job

    def remove_job(self, key: JobKey, uid: str) -> None:
        """Remove a deleted job, unless another job of the same name has replaced it."""
        if key in self.jobs and self.jobs[key].uid == uid:
            del self.jobs[key]
            self._active.discard(key)

    def put_pod(self, body: dict[str, Any]) -> bool:
        """Store a pod. Returns whether a field changed that the operator uses.

        A pod that the operator cannot have created is ignored.
        """
        try:
            pod = parse_pod(body)
        except InvalidPodError as error:
            self._log_foreign_pod(body, error)
            return False
        if pod.uid in self._deleted_uids:
            return False
        pods = self._pods.setdefault(pod_job_key(body), {})
        previous = pods.get(pod.uid)
        if previous is not None and previous.resource_version >= pod.resource_version:
            return False
        pods[pod.uid] = pod
        return previous != pod

    def remove_pod(self, key: JobKey, uid: str) -> None:
        """Remove a deleted pod, and ignore later events about it."""
        _remember(self._deleted_uids, uid)
        pods = self._pods.get(key, {})
        pods.pop(uid, None)
        if not pods:
            self._pods.pop(key, None)

    def workload(self, key: JobKey, job_uid: str) -> Workload | None:
        """The Workload of a job."""
        owned = (workload for workload in self._workloads.get(key, {}).values() if workload.job_uid == job_uid)
        return next(owned, None)

    def workload_state(self, namespace: str) -> tuple[bool, ReasonMessage | None]:
        """Whether the Workloads of a namespace are in the cache, and if not, why they cannot be read."""
        for watched in (None, namespace):
            if watched in self.workload_errors:
                error = self.workload_errors[watched]
                return True, error
        return False, None

    def put_workload(self, body: dict[str, Any]) -> JobKey | None:
        """Store a Workload. Returns the key of its job if a field changed that the operator uses."""
        workload, key = parse_workload(body), pod_job_key(body)
        if workload.uid in self._deleted_uids:
            return None
        workloads = self._workloads.setdefault(key, {})
        previous = workloads.get(workload.uid)
        if previous is not None and previous.resource_version >= workload.resource_version:
            return None
        workloads[workload.uid] = workload
        return key if previous != workload else None

    def remove_workload(self, body: dict[str, Any]) -> JobKey:
        """Remove a deleted Workload. Returns the key of its job."""
        key = pod_job_key(body)
        self._forget_workload(key, body["metadata"]["uid"])
        return key

    def replace_workloads(self, namespace: str | None, bodies: list[dict[str, Any]]) -> set[JobKey]:
        """Replace the Workloads of a namespace (None: the cluster) by a fresh list. Returns the keys of the affected jobs."""
        uids = {body["metadata"]["uid"] for body in bodies}
        changed = {key for body in bodies if (key := self.put_workload(body)) is not None}
        for key, workloads in list(self._workloads.items()):
            for uid in workloads.keys() - uids if namespace in (None, key.namespace) else ():
                self._forget_workload(key, uid)
                changed.add(key)
        return changed

    def _forget_workload(self, key: JobKey, uid: str) -> None:
        _remember(self._deleted_uids, uid)
        workloads = self._workloads.get(key, {})
        workloads.pop(uid, None)
        if not workloads:
            self._workloads.pop(key, None)

    def _log_foreign_pod(self, body: dict[str, Any], error: InvalidPodError) -> None:
        """Log once that a pod is ignored."""
        metadata = body["metadata"]
        if metadata["uid"] not in self._foreign_uids:
            logger.warning("pod %s/%s is ignored: %s", metadata["namespace"], metadata["name"], error)
        _remember(self._foreign_uids, metadata["uid"])

    def contains(self, jobs: ListSnapshot, pods: ListSnapshot) -> bool:
        """Whether all listed jobs and pods have been stored or ignored."""
        known_jobs = {job.uid for job in self.jobs.values()}
        known_pods = {pod.uid for _, pod in self.all_pods()} | self._deleted_uids.keys() | self._foreign_uids.keys()
        return jobs.uids <= known_jobs and pods.uids <= known_pods

    def remove_deleted(self, jobs: ListSnapshot, pods: ListSnapshot, namespace: str | None) -> set[JobKey]:
        """Remove the jobs and pods that fresh lists of a namespace (None: the cluster) show as deleted.

        A watch that had to restart does not report the deletions in between. Returns the keys of the affected jobs.
        """
        changed = set()
        for key in {*self.jobs, *self._pods}:
            if namespace not in (None, key.namespace):
                continue
            job = self.jobs.get(key)
            if job is not None and jobs.shows_deleted(job.uid, job.resource_version):
                self.remove_job(key, job.uid)
                changed.add(key)
            if self.remove_deleted_pods(key, pods):
                changed.add(key)
        return changed

    def remove_deleted_pods(self, key: JobKey, snapshot: ListSnapshot) -> bool:
        """Remove the pods of one job that a list shows as deleted. Returns whether there were any."""
        deleted = [pod.uid for pod in self.pods(key) if snapshot.shows_deleted(pod.uid, pod.resource_version)]
        for uid in deleted:
            self.remove_pod(key, uid)
        return bool(deleted)


def job_key(body: dict[str, Any]) -> JobKey:
    """The key of a FineTuneJob object."""
    return JobKey(body["metadata"]["namespace"], body["metadata"]["name"])


def pod_job_key(body: dict[str, Any]) -> JobKey:
    """The key of the job that a Pod object belongs to, from its label."""
    return JobKey(body["metadata"]["namespace"], body["metadata"]["labels"][names.JOB_LABEL])


def parse_status(status: dict[str, Any] | None) -> tuple[JobStatus | None, str]:
    """The status of a job, or None and the reason why this version of the operator cannot read it.

    Unknown fields are ignored, because a newer version may have written the status.
    """
    try:
        return JobStatus.model_validate(status or {}, extra="ignore"), ""
    except ValidationError as error:
        return None, "; ".join(explain(error, "status"))


def _remember(uids: OrderedDict[str, None], uid: str) -> None:
    """Add a UID to those that are remembered, and forget the oldest one of too many."""
    uids[uid] = None
    if len(uids) > MAX_REMEMBERED_UIDS:
        uids.popitem(last=False)


def _foreign_condition_fields(status: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    result = {}
    for condition in (status or {}).get("conditions") or ():
        foreign = {name: value for name, value in condition.items() if name not in CONDITION_FIELDS}
        if foreign:
            result[condition["type"]] = foreign
    return result


def _resource_version(body: dict[str, Any]) -> int:
    return int(body["metadata"].get("resourceVersion") or 0)


def _parse_job(key: JobKey, body: dict[str, Any], previous: CachedJob | None, profiles: Profiles) -> CachedJob:
    metadata = body["metadata"]
    uid, generation = metadata["uid"], metadata.get("generation", 1)
    labels = queue_labels(metadata)
    if previous is not None and (previous.uid, previous.generation, previous.queue_labels) == (uid, generation, labels):
        source = previous.source  # the spec cannot change without a new generation, so it is validated once for each
    else:
        source = JobDocument(body, profiles)
    status, status_error = parse_status(body.get("status"))
    return CachedJob(
        key=key,
        uid=uid,
        resource_version=_resource_version(body),
        generation=generation,
        is_being_deleted="deletionTimestamp" in metadata,
        created=metadata["creationTimestamp"],
        status=status,
        source=source,
        queue_labels=labels,
        status_error=status_error,
        foreign_condition_fields=_foreign_condition_fields(body.get("status")) if status is not None else {},
    )
