"""Executes the actions on the Kueue Workload of a job."""

from __future__ import annotations

import random
from dataclasses import asdict
from typing import Any

from finetune_operator import builders, names
from finetune_operator.api import FineTuneJob
from finetune_operator.api.conditions import ConditionReason
from finetune_operator.api.scheduling import PREBUILT_LABEL
from finetune_operator.builders.workload import WORKLOAD_API_VERSION
from finetune_operator.client.errors import ApiError
from finetune_operator.client.kubernetes import KubernetesClient
from finetune_operator.controller.informer_cache import CachedJob, InformerCache
from finetune_operator.controller.job_state import JobState
from finetune_operator.reconcile import (
    DeleteWorkload,
    EnsureWorkload,
    ReasonMessage,
    SetWorkloadActive,
    UpdateWorkloadStatus,
    WorkloadAction,
)
from finetune_operator.reconcile.backoff import doubled
from finetune_operator.settings import Settings

PRIORITY_CLASSES = "scheduling.k8s.io/v1"
INITIAL_RETRY = 2.0  # seconds until a rejected Workload is sent again, doubled after each rejection
MAX_RETRY = 300.0


class WorkloadExecutor:
    """Writes Workloads, and records a rejected one in the state of the job."""

    def __init__(self, cache: InformerCache, client: KubernetesClient, settings: Settings) -> None:
        self._cache, self._client, self._settings = cache, client, settings

    async def execute(self, job: CachedJob, state: JobState, action: WorkloadAction) -> None:
        """Execute an action. Sets `state.workload_error` and `state.workload_retries` if the Workload is rejected.

        Raises ApiError 409 if the Workload has changed meanwhile.
        """
        match action:
            case EnsureWorkload() if job.document is not None:
                await self._ensure(job, job.document, state)
            case SetWorkloadActive(name, active):
                annotations = {names.SUSPENDED_ANNOTATION: None if active else "true"}
                await self._patch(job, name, {"metadata": {"annotations": annotations}, "spec": {"active": active}})
            case UpdateWorkloadStatus():
                await self._update_status(job, action)
            case DeleteWorkload(name, uid):
                await self._client.delete_object(WORKLOAD_API_VERSION, "Workload", job.key.namespace, name, uid)

    async def _ensure(self, job: CachedJob, document: FineTuneJob, state: JobState) -> None:
        try:
            priority = await self._priority(document)
            obstacle = await self._create_or_update(job, document, priority)
        except ApiError as error:
            if error.status == 409 or (error.status == 404 and PREBUILT_LABEL not in document.metadata.labels):
                raise
            state.workload_error = ReasonMessage(ConditionReason.CREATE_REJECTED, f"The Workload was rejected: {error.message}")
        except LookupError as error:
            state.workload_error = ReasonMessage(ConditionReason.PRIORITY_CLASS_NOT_FOUND, str(error))
        else:
            if obstacle is None:
                state.workload_retries = 0
            state.workload_error = obstacle

    async def _create_or_update(
        self, job: CachedJob, document: FineTuneJob, priority: builders.PriorityClass | None
    ) -> ReasonMessage | None:
        """Returns why the job cannot take the Workload that its label names; None if it has a Workload now."""
        existing = self._cache.workload(job.key, job.uid)
        body = builders.build_workload(document, self._settings, priority)
        if existing is not None:
            annotations = {names.SPEC_HASH_ANNOTATION: builders.workload_hash(document, self._settings)}
            spec = {"priorityClassRef": None} | body["spec"]
            metadata = {"annotations": annotations, "resourceVersion": str(existing.resource_version)}
            await self._patch(job, existing.name, {"metadata": metadata, "spec": spec})
        elif PREBUILT_LABEL in document.metadata.labels:
            return await self._adopt(job, document, builders.workload_name(document))
        else:
            self._cache.put_workload(await self._client.create(body))
        return None

    async def _adopt(self, job: CachedJob, document: FineTuneJob, name: str) -> ReasonMessage | None:
        found = await self._client.get_object(WORKLOAD_API_VERSION, "Workload", job.key.namespace, name)
        if obstacle := builders.adoption_obstacle(document, self._settings, found):
            message = f"{PREBUILT_LABEL}: {obstacle}: let the label name a Workload for this job, or remove it."
            return ReasonMessage(ConditionReason.WORKLOAD_MISMATCH, message)
        patch = builders.adoption_patch(document, self._settings)
        patch["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
        await self._patch(job, name, patch)
        return None

    async def _priority(self, document: FineTuneJob) -> builders.PriorityClass | None:
        """The priority class of the job in the queue. Raises LookupError if it does not exist."""
        name, field = document.workload_priority_class, "scheduling.workloadPriorityClass"
        group, kind, api_version = "kueue.x-k8s.io", "WorkloadPriorityClass", WORKLOAD_API_VERSION
        if name is None:
            name, field = document.spec.workers.template.priority_class_name, "workers.template.priorityClassName"
            group, kind, api_version = "scheduling.k8s.io", "PriorityClass", PRIORITY_CLASSES
        if name is None:
            return None
        try:
            body = await self._client.get_object(api_version, kind, None, name)
        except ApiError as error:
            if error.status != 404:
                raise
            raise LookupError(f"{field}: the {kind} {name!r} does not exist: create it or correct the name.") from error
        return builders.PriorityClass(group, kind, name, int(body["value"]))

    async def _update_status(self, job: CachedJob, action: UpdateWorkloadStatus) -> None:
        status: dict[str, Any] = {"conditions": [_condition(asdict(condition)) for condition in action.conditions]}
        if action.past_execution_seconds:
            status["accumulatedPastExecutionTimeSeconds"] = action.past_execution_seconds
        if action.releases_quota:
            status["admission"] = None
        patch = {"metadata": {"resourceVersion": str(action.resource_version)}, "status": status}
        await self._patch(job, action.name, patch, subresource="status")

    async def _patch(self, job: CachedJob, name: str, patch: dict[str, Any], subresource: str = "") -> None:
        body = await self._client.patch_object(WORKLOAD_API_VERSION, "Workload", job.key.namespace, name, patch, subresource)
        self._cache.put_workload(body)


def retry_delay(state: JobState) -> float | None:
    """Seconds until a rejected Workload is sent again; None if none was rejected."""
    if state.workload_error is None:
        return None
    state.workload_retries += 1
    return doubled(INITIAL_RETRY, MAX_RETRY, state.workload_retries + 1) * random.uniform(0.5, 1.0)


def _condition(fields: dict[str, Any]) -> dict[str, Any]:
    condition = {
        "type": fields["type"],
        "status": fields["status"],
        "reason": fields["reason"],
        "message": fields["message"],
        "lastTransitionTime": fields["last_transition_time"],
    }
    if fields["observed_generation"] is not None:
        condition["observedGeneration"] = fields["observed_generation"]
    return condition
