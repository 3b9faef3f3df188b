"""The informer cache: the newest known state of all jobs and pods, filled by the watches and by responses to writes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from finetune_operator import names
from finetune_operator.api import FineTuneJob, JobStatus
from finetune_operator.api.scheduling import PREBUILT_LABEL, PRIORITY_LABEL, QUEUE_LABEL
from finetune_operator.client.types import JobKey, ListSnapshot
from finetune_operator.reconcile import Pod, ReasonMessage, Workload, parse_pod, parse_workload
from finetune_trainer.config import explain

MAX_DELETED_UIDS = 4096


@dataclass(frozen=True, slots=True)
class CachedJob:
    """A FineTuneJob; `document` is None if its spec is invalid, and `validation_errors` lists the errors."""

    key: JobKey
    uid: str
    resource_version: int
    generation: int
    is_being_deleted: bool
    created: str
    status: JobStatus
    document: FineTuneJob | None
    validation_errors: tuple[str, ...]
    queue_labels: dict[str, str] = field(default_factory=dict)


class InformerCache:
    """Jobs and pods by job key.

    An older resourceVersion never replaces a newer one, and a deleted pod never reappears.
    """

    def __init__(self) -> None:
        self.jobs: dict[JobKey, CachedJob] = {}
        self._pods: dict[JobKey, dict[str, Pod]] = {}
        self._workloads: dict[JobKey, dict[str, Workload]] = {}
        self._deleted_uids: OrderedDict[str, None] = OrderedDict()
        self.workload_errors: dict[str | None, ReasonMessage | None] = {}
        """For each watched namespace (None: the cluster) why its Workloads cannot be read; absent before the first list."""

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
        job = _parse_job(key, body, previous)
        self.jobs[key] = job
        return job

    def remove_job(self, key: JobKey, uid: str) -> None:
        """Remove a deleted job, unless another job of the same name has replaced it."""
        if key in self.jobs and self.jobs[key].uid == uid:
            del self.jobs[key]

    def put_pod(self, body: dict[str, Any]) -> bool:
        """Store a pod. Returns whether a field changed that the operator uses."""
        pod = parse_pod(body)
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
        self._remember_deleted(uid)
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
        self._remember_deleted(uid)
        workloads = self._workloads.get(key, {})
        workloads.pop(uid, None)
        if not workloads:
            self._workloads.pop(key, None)

    def _remember_deleted(self, uid: str) -> None:
        self._deleted_uids[uid] = None
        if len(self._deleted_uids) > MAX_DELETED_UIDS:
            self._deleted_uids.popitem(last=False)

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


def parse_status(status: dict[str, Any] | None) -> JobStatus:
    """The status of a job, which another version of the operator may have written; an invalid one counts as absent."""
    try:
        return JobStatus.model_validate(status or {}, extra="ignore")
    except ValidationError:
        return JobStatus()


def _resource_version(body: dict[str, Any]) -> int:
    return int(body["metadata"].get("resourceVersion") or 0)


def _parse_job(key: JobKey, body: dict[str, Any], previous: CachedJob | None) -> CachedJob:
    metadata = body["metadata"]
    uid, generation = metadata["uid"], metadata.get("generation", 1)
    queue_labels = _queue_labels(metadata)
    if previous is not None and (previous.uid, previous.generation, previous.queue_labels) == (uid, generation, queue_labels):
        # The spec is validated once per generation, because it cannot change without a new generation.
        document, validation_errors = previous.document, previous.validation_errors
    else:
        document, validation_errors = _parse_document(body)
    return CachedJob(
        key=key,
        uid=uid,
        resource_version=_resource_version(body),
        generation=generation,
        is_being_deleted="deletionTimestamp" in metadata,
        created=metadata["creationTimestamp"],
        status=parse_status(body.get("status")),
        document=document,
        validation_errors=validation_errors,
        queue_labels=queue_labels,
    )


def _queue_labels(metadata: dict[str, Any]) -> dict[str, str]:
    """The labels of a job that Kueue defines."""
    labels = metadata.get("labels") or {}
    return {name: value for name, value in labels.items() if name in (QUEUE_LABEL, PRIORITY_LABEL, PREBUILT_LABEL)}


def _parse_document(body: dict[str, Any]) -> tuple[FineTuneJob | None, tuple[str, ...]]:
    # Other metadata, such as annotations, may be large, and the operator does not use it.
    metadata = {name: body["metadata"][name] for name in ("name", "namespace", "uid")}
    metadata["labels"] = _queue_labels(body["metadata"])
    document = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata, "spec": body.get("spec")}
    try:
        return FineTuneJob.model_validate(document), ()
    except ValidationError as error:
        return None, tuple(explain(error))
