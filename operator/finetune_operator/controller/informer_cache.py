"""What the watches have shown of jobs and pods, as little as is needed of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from finetune_operator import names
from finetune_operator.api import FineTuneJob, JobStatus
from finetune_operator.reconcile import Pod, read_pod
from finetune_trainer.config import explain


class ListSnapshot(NamedTuple):
    """What a list at one resourceVersion holds."""

    version: int
    uids: frozenset[str]

    def lacks(self, uid: str, version: int) -> bool:
        """Whether an object was gone by then: it is not there although it is older than the list."""
        return uid not in self.uids and version <= self.version


class JobKey(NamedTuple):
    """Which job."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class CachedJob:
    """A FineTuneJob as last seen; `document` is None if it cannot be read, with the `validation_errors` in it."""

    key: JobKey
    uid: str
    version: int
    generation: int
    deleting: bool
    created: str
    status: JobStatus
    document: FineTuneJob | None
    validation_errors: tuple[str, ...]


REMEMBERED_DELETIONS = 4096


class InformerCache:
    """Jobs and pods by key. An object of an older version never replaces a newer one, nor does a deleted one come back."""

    def __init__(self) -> None:
        self.jobs: dict[JobKey, CachedJob] = {}
        self._pods: dict[JobKey, dict[str, Pod]] = {}
        self._deleted: OrderedDict[str, None] = OrderedDict()

    def pods(self, key: JobKey) -> tuple[Pod, ...]:
        """All pods that carry the job's name, whoever owns them."""
        return tuple(self._pods.get(key, {}).values())

    def all_pods(self) -> Iterator[tuple[JobKey, Pod]]:
        """Every pod with its job."""
        for key, pods in self._pods.items():
            for pod in pods.values():
                yield key, pod

    def put_job(self, body: dict[str, Any]) -> CachedJob:
        """Remember a job."""
        key = job_key(body)
        old = self.jobs.get(key)
        version = _version(body)
        if old is not None and old.version >= version:
            return old
        self.jobs[key] = new = _read_job(key, body, old)
        return new

    def drop_job(self, key: JobKey, uid: str) -> None:
        """Forget a job that was deleted."""
        if key in self.jobs and self.jobs[key].uid == uid:
            del self.jobs[key]

    def put_pod(self, body: dict[str, Any]) -> bool:
        """Remember a pod; True if something of it has changed that matters."""
        pod = read_pod(body)
        if pod.uid in self._deleted:
            return False
        pods = self._pods.setdefault(pod_key(body), {})
        old = pods.get(pod.uid)
        if old is not None and old.version >= pod.version:
            return False
        pods[pod.uid] = pod
        return old != pod

    def drop_pod(self, key: JobKey, uid: str) -> None:
        """Forget a pod that is gone, for good."""
        self._deleted[uid] = None
        if len(self._deleted) > REMEMBERED_DELETIONS:
            self._deleted.popitem(last=False)
        pods = self._pods.get(key, {})
        pods.pop(uid, None)
        if not pods:
            self._pods.pop(key, None)

    def keep_only(self, jobs: ListSnapshot, pods: ListSnapshot, namespace: str | None) -> set[JobKey]:
        """Forget what a fresh list of a namespace (or of all) lacks; the keys that this concerns.

        A watch that had to begin anew never tells what was deleted meanwhile.
        """
        here = [key for key in {*self.jobs, *self._pods} if namespace in (None, key.namespace)]
        changed = set()
        for key in here:
            job = self.jobs.get(key)
            if job is not None and jobs.lacks(job.uid, job.version):
                self.drop_job(key, job.uid)
                changed.add(key)
            if self.keep_pods(key, pods):
                changed.add(key)
        return changed

    def keep_pods(self, key: JobKey, pods: ListSnapshot) -> bool:
        """Forget the pods of one job that a list lacks; True if there were any."""
        gone = [pod.uid for pod in self.pods(key) if pods.lacks(pod.uid, pod.version)]
        for uid in gone:
            self.drop_pod(key, uid)
        return bool(gone)


def job_key(body: dict[str, Any]) -> JobKey:
    """The key of a FineTuneJob."""
    return JobKey(body["metadata"]["namespace"], body["metadata"]["name"])


def pod_key(body: dict[str, Any]) -> JobKey:
    """The key of the job that a pod belongs to by its label."""
    return JobKey(body["metadata"]["namespace"], body["metadata"]["labels"][names.JOB_LABEL])


def read_status(status: dict[str, Any] | None) -> JobStatus:
    """A status, also one written by another version of the operator; one that makes no sense counts as absent."""
    try:
        return JobStatus.model_validate(status or {}, extra="ignore")
    except ValidationError:
        return JobStatus()


def _version(body: dict[str, Any]) -> int:
    return int(body["metadata"].get("resourceVersion") or 0)


def _read_job(key: JobKey, body: dict[str, Any], old: CachedJob | None) -> CachedJob:
    metadata = body["metadata"]
    uid, generation = metadata["uid"], metadata.get("generation", 1)
    if old is not None and (old.uid, old.generation) == (uid, generation):
        document, validation_errors = old.document, old.validation_errors  # the document changes with its generation only
    else:
        document, validation_errors = _read_document(body)
    return CachedJob(
        key=key,
        uid=uid,
        version=_version(body),
        generation=generation,
        deleting="deletionTimestamp" in metadata,
        created=metadata["creationTimestamp"],
        status=read_status(body.get("status")),
        document=document,
        validation_errors=validation_errors,
    )


def _read_document(body: dict[str, Any]) -> tuple[FineTuneJob | None, tuple[str, ...]]:
    # Annotations and the like are left out: they may be large and nothing here needs them.
    metadata = {field: body["metadata"][field] for field in ("name", "namespace", "uid")}
    document = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata, "spec": body.get("spec")}
    try:
        return FineTuneJob.model_validate(document), ()
    except ValidationError as error:
        return None, tuple(explain(error))
