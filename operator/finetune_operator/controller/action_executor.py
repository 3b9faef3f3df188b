"""Executes the actions of a plan: creates and deletes the objects of a job."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from finetune_operator import builders, names
from finetune_operator.api.conditions import ConditionReason
from finetune_operator.builders import Peer, Placement
from finetune_operator.client.errors import ApiError
from finetune_operator.client.kubernetes import KubernetesClient
from finetune_operator.controller.informer_cache import CachedJob, InformerCache
from finetune_operator.controller.job_state import JobState
from finetune_operator.controller.service_keeper import ServiceKeeper
from finetune_operator.controller.workload_executor import WorkloadExecutor, retry_delay
from finetune_operator.controller.workqueue import OutdatedError
from finetune_operator.reconcile import (
    Action,
    CreateJobResources,
    CreatePod,
    DeleteJob,
    DeletePod,
    DeleteWorkload,
    EnsureWorkload,
    ReasonMessage,
    SetWorkloadActive,
    UpdateNetworkPolicy,
    UpdateWorkloadStatus,
)
from finetune_operator.reconcile.backoff import doubled
from finetune_operator.settings import Settings

logger = logging.getLogger(__name__)

REPORT_ERROR_SECONDS = 0.5  # until the reconcile that writes a new create error to the status
CREATE_RETRY_SECONDS = 5.0  # after the first rejected create request; then twice as long each time
MAX_CREATE_RETRY_SECONDS = 300.0
RETRY_JITTER = 0.25  # share of a delay by which it is longer or shorter


class ActionExecutor:
    """Executes actions, and records a rejected create request in the state of the job."""

    def __init__(
        self, cache: InformerCache, client: KubernetesClient, settings: Settings, clock: Callable[[], datetime]
    ) -> None:
        self._cache, self._client, self._settings, self._clock = cache, client, settings, clock
        self._workloads = WorkloadExecutor(cache, client, settings)
        self._services = ServiceKeeper(client, clock)

    async def execute(self, job: CachedJob, state: JobState, actions: tuple[Action, ...]) -> float | None:
        """Execute all actions. Returns the seconds until the next reconcile, or None if only a change requires one.

        A rejected create request is reported by the next reconcile; the policies repeat it after `state.create_retry_time`.
        """
        workload = self._cache.workload(job.key, job.uid)
        delay = await self._execute_all(job, state, actions)
        if self._cache.workload(job.key, job.uid) != workload:
            # The response is in the cache already, so the watch has no news. Kueue may have none either: a Workload that
            # MultiKueue created is admitted before the job takes it.
            return 0.0
        return delay

    async def _execute_all(self, job: CachedJob, state: JobState, actions: tuple[Action, ...]) -> float | None:
        if not any(isinstance(action, CreatePod) for action in actions):
            await _wait_for_all(self._execute_one(job, state, action) for action in actions)
            return retry_delay(state) if EnsureWorkload() in actions else None
        state.create_error = None
        try:
            await self._create_all(job, state, actions)
        except ApiError as error:
            if not error.is_rejection:
                raise
            state.create_error = _rejection(error)
        if state.create_error is None:
            state.create_failures, state.create_retry_time = 0, None
            return None
        delay = _retry_delay(state.create_failures)
        state.create_failures += 1
        state.create_retry_time = self._clock() + timedelta(seconds=delay)
        return REPORT_ERROR_SECONDS

    async def _create_all(self, job: CachedJob, state: JobState, actions: tuple[Action, ...]) -> None:
        """Create the objects that pods need, then execute the other actions."""
        others = []
        for action in actions:
            if not isinstance(action, CreateJobResources):
                others.append(action)
            elif job.document is not None:
                state.create_error = await self._services.ensure(job.key.namespace)
                bodies = builders.build_job_resources(job.document, self._settings)
                await asyncio.gather(*(self._create(job, state, body, action.may_exist) for body in bodies))
                state.has_network_policy = True
        await _wait_for_all(self._execute_one(job, state, action) for action in others)

    async def _execute_one(self, job: CachedJob, state: JobState, action: Action) -> None:
        match action:
            case CreatePod() if job.document is not None and state.create_error is None:
                placement = state.placement if job.document.queue_name is not None else Placement()
                assert placement is not None, "the observer reads the placement before pods may be created"
                peer = await self._peer(job, action.peer) if action.peer else None
                body = builders.build_pod(
                    job.document, action.index, self._settings, placement, is_alternate=action.is_alternate,
                    peer=peer, nodes=action.nodes, avoided_nodes=action.avoided_nodes,
                    last_resort_nodes=action.last_resort_nodes,
                )  # fmt: skip
                await self._create(job, state, body)
            case DeletePod(name, uid, force, grace_seconds):
                await self._client.delete_pod(job.key.namespace, name, uid, 0 if force else grace_seconds)
            case UpdateNetworkPolicy() if job.document is not None and not state.has_network_policy:
                await self._update_network_policy(job, state, builders.build_network_policy(job.document, self._settings))
            case DeleteJob():
                await self._client.delete_job(job.key, job.uid)
            case EnsureWorkload() | SetWorkloadActive() | UpdateWorkloadStatus() | DeleteWorkload():
                await self._workloads.execute(job, state, action)

    async def _peer(self, job: CachedJob, pod_name: str) -> Peer:
        """What a new pod has in common with this one. ApiError 404 if it does not exist any more."""
        pod = await self._client.get_object("v1", "Pod", job.key.namespace, pod_name)
        [image] = [item["image"] for item in pod["spec"]["containers"] if item["name"] == names.CONTAINER]
        return Peer(image, pod["metadata"]["annotations"][names.DOCUMENT_ANNOTATION])

    async def _create(self, job: CachedJob, state: JobState, body: dict[str, Any], may_exist: bool = False) -> None:
        """Create an object, unless the job already owns it; a name conflict becomes the create error.

        Quotas are checked before names: where the job's own objects use up a quota, a request for one that exists is rejected
        as one too many (kubernetes#106842). So objects that may exist are looked up first, and all others after a rejection.
        """
        if may_exist and await self._exists(job, state, body):
            return
        try:
            created = await self._client.create(body)
        except ApiError as error:
            may_exist = error.status == 403 or (error.status == 409 and error.reason == "AlreadyExists")
            if may_exist and await self._exists(job, state, body):
                return
            raise
        if body["kind"] == "Pod":
            # The watch may report the pod late; until then the next reconcile would create it again.
            self._cache.put_pod(created)

    async def _exists(self, job: CachedJob, state: JobState, body: dict[str, Any]) -> bool:
        """Whether an object of this kind and name exists; that of another owner becomes the create error."""
        owner = await self._owner(body)
        if owner is None:
            return False
        if owner != job.uid:
            state.create_error = ReasonMessage(ConditionReason.NAME_CONFLICT, _name_conflict(body))
        elif body["kind"] == "NetworkPolicy":
            await self._patch_spec(body)  # the operator's settings may have changed when it was restarted
        elif body["kind"] == "PodGroup":
            await self._update_pod_group(job, body)
        return True

    async def _update_pod_group(self, job: CachedJob, body: dict[str, Any]) -> None:
        """Update the number of pods of a PodGroup, or delete it if another field has changed, which Kubernetes does not allow.

        Pods that run keep their group: a document changes only while the job has no pods, but the defaults of its profile may
        change at any time. Raises OutdatedError until a deleted PodGroup is gone, for which its last pod has to be gone first.
        """
        metadata = body["metadata"]
        kind = body["apiVersion"], body["kind"], metadata["namespace"], metadata["name"]
        existing = (await self._client.get_object(*kind))["metadata"]
        annotations = existing.get("annotations") or {}
        is_current = annotations.get(names.SPEC_HASH_ANNOTATION) == metadata["annotations"][names.SPEC_HASH_ANNOTATION]
        is_being_deleted = "deletionTimestamp" in existing
        has_pods = any(pod.job_uid == job.uid and not pod.is_finished for pod in self._cache.pods(job.key))
        if has_pods or (is_current and not is_being_deleted):
            if is_current:
                await self._patch_spec(body)
            return
        if not is_being_deleted:
            await self._client.delete_object(*kind, existing["uid"])
        raise OutdatedError(f"PodGroup {metadata['name']} is created again when the one of the earlier document is gone")

    async def _update_network_policy(self, job: CachedJob, state: JobState, body: dict[str, Any] | None) -> None:
        """Create or update the NetworkPolicy of running pods; a failure is no reason to stop them."""
        try:
            owner = await self._owner(body) if body is not None else None
            if body is not None and owner is None:
                await self._client.create(body)
            elif body is not None and owner == job.uid:
                await self._patch_spec(body)
            elif body is not None:
                logger.warning("%s: %s", job.key, _name_conflict(body))
        except ApiError as error:
            if not error.is_rejection:
                raise
            logger.warning("%s: the NetworkPolicy of the running job was not updated: %s", job.key, error)
        state.has_network_policy = True

    async def _owner(self, body: dict[str, Any]) -> str | None:
        """UID of the controller of the object with this kind and name, "" if it has none; None if there is no such object."""
        try:
            return await self._client.controller_uid(body)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def _patch_spec(self, body: dict[str, Any]) -> None:
        metadata = body["metadata"]
        await self._client.patch_object(
            body["apiVersion"], body["kind"], metadata["namespace"], metadata["name"], {"spec": body["spec"]}
        )


def _name_conflict(body: dict[str, Any]) -> str:
    kind, name = body["kind"], body["metadata"]["name"]
    return f"{kind} {name} exists but does not belong to this job: delete it, or rename the job."


def _rejection(error: ApiError) -> ReasonMessage:
    if error.status == 403 and "exceeded quota" in error.message:
        return ReasonMessage(ConditionReason.QUOTA_EXCEEDED, f"The quota has no room for this job: {error.message}")
    message = f"The API server rejected an object of this job: {error.message}"
    return ReasonMessage(ConditionReason.CREATE_REJECTED, message)


def _retry_delay(failures: int) -> float:
    """Seconds until the next create request after `failures` earlier rejections in a row and this one."""
    delay = doubled(CREATE_RETRY_SECONDS, MAX_CREATE_RETRY_SECONDS, failures + 1)
    return delay * random.uniform(1 - RETRY_JITTER, 1 + RETRY_JITTER)


async def _wait_for_all(calls: Iterable[Awaitable[None]]) -> None:
    """Wait for all calls, then raise the first error: one rejected pod must not leave the others unfinished."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
