"""Executes the actions of a plan: creates and deletes the objects of a job."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any

from finetune_operator import builders
from finetune_operator.api.conditions import ConditionReason
from finetune_operator.client.kubernetes import ApiError, KubernetesClient
from finetune_operator.controller.informer_cache import CachedJob, InformerCache
from finetune_operator.controller.job_state import JobState
from finetune_operator.controller.workload_executor import WorkloadExecutor, retry_delay
from finetune_operator.reconcile import (
    Action,
    CreateJobResources,
    CreatePod,
    DeleteJob,
    DeletePod,
    DeleteWorkload,
    EnsureWorkload,
    ReasonMessage,
    ReconcileTimings,
    SetWorkloadActive,
    UpdateWorkloadStatus,
)
from finetune_operator.settings import Settings

REPORT_ERROR_SECONDS = 0.5  # until the reconcile that writes a new create error to the status


class ActionExecutor:
    """Executes actions, and records a rejected create request in the state of the job."""

    def __init__(self, cache: InformerCache, client: KubernetesClient, settings: Settings, timings: ReconcileTimings) -> None:
        self._cache, self._client, self._settings, self._timings = cache, client, settings, timings
        self._workloads = WorkloadExecutor(cache, client, settings)

    async def execute(self, job: CachedJob, state: JobState, actions: tuple[Action, ...]) -> float | None:
        """Execute all actions. Returns None, or the seconds until a rejected create request should be retried."""
        if not any(isinstance(action, CreatePod) for action in actions):
            await _wait_for_all(self._execute_one(job, state, action) for action in actions)
            return retry_delay(state) if EnsureWorkload() in actions else None
        previous_error, state.create_error = state.create_error, None
        try:
            await self._create_all(job, state, actions)
        except ApiError as error:
            if not error.is_rejection:
                raise
            message = f"The API server rejected an object of this job: {error.message}"
            state.create_error = ReasonMessage(ConditionReason.CREATE_REJECTED, message)
        if state.create_error is None:
            return None
        if previous_error is None or previous_error.reason != state.create_error.reason:
            return REPORT_ERROR_SECONDS
        return self._timings.recheck_interval

    async def _create_all(self, job: CachedJob, state: JobState, actions: tuple[Action, ...]) -> None:
        """Create the Service and the ConfigMap, then execute the other actions, because pods need both."""
        if CreateJobResources() in actions and job.document is not None:
            pod_group = builders.build_pod_group(job.document)
            await asyncio.gather(
                self._create(job, state, builders.build_service(job.document)),
                self._create(job, state, builders.build_config_map(job.document)),
                *([self._create(job, state, pod_group)] if pod_group is not None else []),
            )
        others = [action for action in actions if not isinstance(action, CreateJobResources)]
        await _wait_for_all(self._execute_one(job, state, action) for action in others)

    async def _execute_one(self, job: CachedJob, state: JobState, action: Action) -> None:
        match action:
            case CreatePod(index) if job.document is not None and state.create_error is None:
                placement = state.placement if job.document.queue_name is not None else None
                await self._create(job, state, builders.build_pod(job.document, index, self._settings, placement))
            case DeletePod(name, uid, force):
                await self._client.delete_pod(job.key.namespace, name, uid, force)
            case DeleteJob():
                await self._client.delete_job(job.key, job.uid)
            case EnsureWorkload() | SetWorkloadActive() | UpdateWorkloadStatus() | DeleteWorkload():
                await self._workloads.execute(job, state, action)

    async def _create(self, job: CachedJob, state: JobState, body: dict[str, Any]) -> None:
        """Create an object, unless the job already owns it; a name conflict becomes the create error."""
        kind, name = body["kind"], body["metadata"]["name"]
        try:
            created = await self._client.create(body)
        except ApiError as error:
            if error.status != 409 or error.reason != "AlreadyExists":
                raise
            if await self._client.controller_uid(body) != job.uid:
                state.create_error = ReasonMessage(
                    ConditionReason.NAME_CONFLICT,
                    f"{kind} {name} exists but does not belong to this job: delete it, or rename the job.",
                )
            elif kind == "PodGroup":  # it outlives a suspension, in which the number of nodes may change
                await self._client.patch_object(body["apiVersion"], kind, job.key.namespace, name, {"spec": body["spec"]})
            return
        if kind == "Pod":
            # The watch may report the pod late; until then the next reconcile would create it again.
            self._cache.put_pod(created)


async def _wait_for_all(calls: Iterable[Awaitable[None]]) -> None:
    """Wait for all calls, then raise the first error: one rejected pod must not leave the others unfinished."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
