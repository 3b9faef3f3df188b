"""One pass over one job: observe, decide, write the status, act."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from finetune_operator import builders, names
from finetune_operator.api import FineTuneJob, JobStatus
from finetune_operator.api.conditions import ConditionReason
from finetune_operator.builders.uri_references import secrets
from finetune_operator.client.kubernetes import ApiError, KubernetesClient
from finetune_operator.controller.informer_cache import CachedJob, InformerCache, JobKey
from finetune_operator.controller.metrics import Metrics
from finetune_operator.reconcile import (
    Action,
    CreateJobResources,
    CreatePod,
    DeleteJob,
    DeletePod,
    Event,
    Limits,
    MissingSecret,
    ObservedState,
    Plan,
    ReasonMessage,
    reconcile,
)
from finetune_operator.settings import Settings
from finetune_trainer.protocol.outcome import RunStatus

logger = logging.getLogger(__name__)

SECRET_KNOWN_FOR = 60.0  # seconds that a Secret, once seen, is taken to exist
SAY_SOON = 0.5  # seconds until a create_error stands in the status
CONFLICT_PAUSE = 0.1  # seconds for the watch to catch up with what somebody else has written


@dataclass(slots=True)
class JobState:
    """What this process remembers of a job beyond its cache. Losing it costs a request or two, never a decision."""

    uid: str
    version: int = 0
    status: JobStatus | None = None
    written: float = -math.inf
    create_error: ReasonMessage | None = None
    run: tuple[str, RunStatus] | None = None  # of which pod (UID)


@dataclass
class Reconciler:
    """Brings jobs to where they should be. One pass for one job at a time; passes for many jobs run interleaved."""

    cache: InformerCache
    cluster: KubernetesClient
    settings: Settings
    metrics: Metrics
    limits: Limits = field(default_factory=Limits)
    instance: str = "finetune-operator"
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _memories: dict[JobKey, JobState] = field(default_factory=dict)
    _secrets: dict[tuple[str, str], float] = field(default_factory=dict)

    def memory(self, job: CachedJob) -> JobState:
        """What is remembered of this job; a new one of the same name starts afresh."""
        memory = self._memories.get(job.key)
        if memory is None or memory.uid != job.uid:
            memory = self._memories[job.key] = JobState(job.uid)
        return memory

    def wrote(self, job: CachedJob) -> bool:
        """Whether what the watch shows is this process's own write, or older."""
        memory = self._memories.get(job.key)
        return memory is not None and memory.uid == job.uid and job.version <= memory.version

    def keep_run(self, job: CachedJob, pod_uid: str, run: RunStatus) -> bool:
        """Remember what a run said of itself; True if that is news."""
        memory = self.memory(job)
        if memory.run == (pod_uid, run):
            return False
        memory.run = (pod_uid, run)
        return True

    async def reconcile(self, key: JobKey) -> float | None:
        """One pass; returns in how many seconds to look again."""
        job = self.cache.jobs.get(key)
        if job is None:
            self._memories.pop(key, None)
            return None
        if job.deleting:
            return None
        with self.metrics.reconcile_seconds.time():
            memory = self.memory(job)
            plan = await self._decide(job, memory)
            try:
                wait = await self._write(job, memory, plan)
                if wait is not None:
                    return min(wait, plan.requeue_after or wait)
                again = await self._act(job, memory, plan.actions)
                await self._tell(job, plan.notes)
            except ApiError as error:
                if error.status not in (404, 409):
                    raise
                return CONFLICT_PAUSE  # somebody else was faster, and the watch is about to say so
        return min((delay for delay in (again, plan.requeue_after) if delay is not None), default=None)

    async def _decide(self, job: CachedJob, memory: JobState) -> Plan:
        seen = await self._observe(job, memory)
        plan = reconcile(seen, self.limits)
        if plan.status.restarts.total == seen.status.restarts.total:
            return plan
        # The watch of pods may be behind that of jobs, and another operator may have counted this already: ask first.
        listing, pods = await self.cluster.pods_of(job.key, names.JOB_LABEL)
        for body in pods:
            self.cache.put_pod(body)
        self.cache.keep_pods(job.key, listing)
        return reconcile(await self._observe(job, memory), self.limits)

    async def resync(self) -> set[JobKey]:
        """Compare the caches with the cluster; the keys of jobs where something was gone."""
        changed: set[JobKey] = set()
        for namespace in self.settings.served_namespaces or (None,):
            jobs = await self.cluster.list_jobs(namespace)
            pods = await self.cluster.list_pods(namespace, names.JOB_LABEL)
            changed |= self.cache.keep_only(jobs, pods, namespace)
        return changed

    async def _observe(self, job: CachedJob, memory: JobState) -> ObservedState:
        everybody = self.cache.pods(job.key)
        pods = tuple(pod for pod in everybody if pod.job_uid == job.uid)
        first = next((pod.uid for pod in pods if pod.index == 0), None)
        status, _ = _latest(job, memory)
        return ObservedState(
            name=job.key.name,
            uid=job.uid,
            generation=job.generation,
            status=status,
            now=self.clock(),
            job=job.document,
            validation_errors=job.validation_errors,
            pods=pods,
            unowned_pods=tuple(pod.name for pod in everybody if pod.job_uid != job.uid),
            run=memory.run[1] if memory.run is not None and memory.run[0] == first else None,
            missing_secrets=await self._missing_secrets(job.document, status, len(pods)),
            create_error=memory.create_error,
        )

    async def _missing_secrets(self, job: FineTuneJob | None, status: JobStatus, pods: int) -> tuple[MissingSecret, ...]:
        """Only asked for when pods are to be created."""
        if job is None or pods >= job.spec.workers.nodes or job.spec.run_policy.suspend or status.completion_time:
            return ()
        found = secrets(job.spec)
        exist = await asyncio.gather(*(self._secret_exists(job.metadata.namespace, name) for name in found))
        return tuple(MissingSecret(where, name) for (name, where), there in zip(found.items(), exist, strict=True) if not there)

    async def _secret_exists(self, namespace: str, name: str) -> bool:
        now = time.monotonic()
        if now - self._secrets.get((namespace, name), -SECRET_KNOWN_FOR) < SECRET_KNOWN_FOR:
            return True
        exists = await self.cluster.secret_exists(namespace, name)
        if exists:
            self._secrets[namespace, name] = now
        return exists

    async def _write(self, job: CachedJob, memory: JobState, plan: Plan) -> float | None:
        """Write the status if it changed; or return in how many seconds to do so, where that can wait."""
        old, version = _latest(job, memory)
        if plan.status == old:
            return None
        if not plan.urgent and not plan.actions:
            every = max(self.settings.progress_write_interval, len(self.cache.jobs) / self.settings.progress_writes_per_second)
            left = memory.written + every - time.monotonic()
            if left > 0:
                return left
        # Of a status that was never written nothing is there, not even what equals a default.
        before = old.document() if old.observed_generation is not None else {}
        patch = merge_patch(before, plan.status.document())
        try:
            body = await self.cluster.patch_status(job.key, version, patch)
        except ApiError as error:
            if error.status == 404:
                self.cache.drop_job(job.key, job.uid)  # it was deleted and the watch has yet to say so
            raise
        memory.version, memory.status = int(body["metadata"]["resourceVersion"]), plan.status
        memory.written = time.monotonic()
        self.metrics.status_changed(job.created, old, plan.status, self.clock())
        return None

    async def _act(self, job: CachedJob, memory: JobState, actions: tuple[Action, ...]) -> float | None:
        """Do what was decided. If the API server refuses to create something, the next pass says so and tries again."""
        if not any(isinstance(action, CreatePod) for action in actions):
            await _all(self._do(job, memory, action) for action in actions)
            return None
        before, memory.create_error = memory.create_error, None
        try:
            if CreateJobResources() in actions and job.document is not None:
                await asyncio.gather(
                    self._create(job, memory, builders.service(job.document)),
                    self._create(job, memory, builders.config_map(job.document)),
                )
            await _all(self._do(job, memory, action) for action in actions if not isinstance(action, CreateJobResources))
        except ApiError as error:
            if not error.is_refusal:
                raise
            memory.create_error = ReasonMessage(
                ConditionReason.CREATION_REFUSED, f"The API server refuses what this job needs: {error.message}"
            )
        if memory.create_error is None:
            return None
        is_news = before is None or before.reason != memory.create_error.reason
        return SAY_SOON if is_news else self.limits.look_again

    async def _do(self, job: CachedJob, memory: JobState, action: Action) -> None:
        match action:
            case CreatePod(index) if job.document is not None and memory.create_error is None:
                await self._create(job, memory, builders.pod(job.document, index, self.settings))
            case DeletePod(name, uid, force):
                await self.cluster.delete_pod(job.key.namespace, name, uid, force)
            case DeleteJob():
                await self.cluster.delete_job(job.key, job.uid)

    async def _create(self, job: CachedJob, memory: JobState, body: dict[str, Any]) -> None:
        kind, name = body["kind"], body["metadata"]["name"]
        try:
            created = await self.cluster.create(body)
        except ApiError as error:
            if error.status != 409 or error.reason != "AlreadyExists":
                raise
            if await self.cluster.owner_of(kind, job.key.namespace, name) != job.uid:
                memory.create_error = ReasonMessage(
                    ConditionReason.NAME_TAKEN,
                    f"{kind} {name} exists and is not this job's: delete it, or apply the job under another name.",
                )
            return
        if kind == "Pod":
            # The watch may be late: without this the next pass would miss the pod and create it once more.
            self.cache.put_pod(created)

    async def _tell(self, job: CachedJob, notes: Iterable[Event]) -> None:
        for note in notes:
            logger.info("%s: %s: %s", job.key, note.reason, note.message)
            body = builders.event(*job.key, job.uid, note.type, note.reason, note.message, self.clock(), self.instance)
            try:
                await self.cluster.create(body)
            except ApiError as error:  # an event is a courtesy: the status says the same
                logger.warning("%s: the event was not stored: %s", job.key, error)


def _latest(job: CachedJob, memory: JobState) -> tuple[JobStatus, int]:
    """The newest status with its resourceVersion: this process's own last write, unless the watch has shown a newer one."""
    if memory.status is not None and memory.version >= job.version:
        return memory.status, memory.version
    return job.status, job.version


async def _all(calls: Iterable[Awaitable[None]]) -> None:
    """Wait for all calls, then raise the first error: one refused pod must not leave the fate of others unknown."""
    errors = [result for result in await asyncio.gather(*calls, return_exceptions=True) if isinstance(result, BaseException)]
    if errors:
        raise errors[0]


def merge_patch(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The RFC 7386 patch that makes `new` out of `old`; lists are written whole."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := merge_patch(before, value):
                patch[key] = inner
        elif key not in old or before != value:
            patch[key] = value
    return patch
