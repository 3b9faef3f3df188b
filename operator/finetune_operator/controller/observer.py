"""Builds the observed state of a job from the cache, the state of this process and the Secrets of its namespace."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from finetune_operator import builders, names
from finetune_operator.api import FineTuneJob, JobStatus
from finetune_operator.api.conditions import is_finished
from finetune_operator.client.kubernetes import KubernetesClient
from finetune_operator.client.types import JobKey
from finetune_operator.controller.informer_cache import CachedJob, InformerCache
from finetune_operator.controller.job_state import JobState
from finetune_operator.controller.node_monitor import NodeMonitor
from finetune_operator.controller.placement_cache import PlacementCache
from finetune_operator.controller.secret_cache import SecretCache
from finetune_operator.controller.start_problems import StartProblems
from finetune_operator.reconcile import MissingSecret, ObservedState, Pod, is_retained
from finetune_operator.settings import Settings
from finetune_trainer.protocol.outcome import RunStatus


class Observer:
    """Observes jobs.

    Requests to the API server are made only for Secrets and placements that pods are about to need, and for nodes that may be
    lost.
    """

    def __init__(
        self,
        cache: InformerCache,
        client: KubernetesClient,
        settings: Settings,
        nodes: NodeMonitor,
        clock: Callable[[], datetime],
    ) -> None:
        self._cache, self._client, self._settings, self._clock = cache, client, settings, clock
        self._nodes = nodes
        self._secrets = SecretCache(client)
        self._placements = PlacementCache(client)
        self._start_problems = StartProblems(client, clock)

    async def observe(self, job: CachedJob, state: JobState) -> ObservedState:
        """The input of a reconcile. Raises UnreadableStatusError if this version of the operator cannot read the status."""
        status, _ = state.latest_status(job)
        owned: list[Pod] = []
        retained: list[Pod] = []
        unowned: list[str] = []
        for pod in self._cache.pods(job.key):
            if pod.job_uid != job.uid:
                unowned.append(pod.name)
            elif is_retained(status, pod):
                retained.append(pod)
            else:
                owned.append(pod)
        existing = {pod.uid for pod in (*owned, *retained)}
        workload = self._cache.workload(job.key, job.uid)
        is_queued = job.document is not None and job.document.queue_name is not None
        workloads_synced, queue_error = self._cache.workload_state(job.key.namespace) if is_queued else (True, None)
        missing_secrets: tuple[MissingSecret, ...] = ()
        placement_error = None
        if job.document is not None and _may_need_pods(job.document, status, owned):
            missing_secrets = await self._secrets.missing_secrets(job.document)
            if workload is not None and workload.may_run:
                state.placement, placement_error = await self._placements.placement(workload)
            elif is_queued and state.placement is None:
                placement_error = queue_error  # Kueue was removed while the job ran
        responding, silent = state.pods_in_contact(pod.uid for pod in owned)
        return ObservedState(
            name=job.key.name,
            uid=job.uid,
            generation=job.generation,
            status=status,
            now=self._clock(),
            job=job.document,
            validation_errors=job.validation_errors,
            is_refused_by_profile=job.is_refused_by_profile,
            pods=tuple(owned),
            retained_pods=tuple(retained),
            unowned_pods=tuple(unowned),
            run=_current_run(state, owned),
            missing_secrets=missing_secrets,
            create_error=state.create_error or state.workload_error,
            workload=workload,
            workload_hash=self._workload_hash(state, job.document) if is_queued and job.document else "",
            workloads_synced=workloads_synced,
            queue_error=queue_error,
            placement_error=placement_error,
            create_retry_time=state.create_retry_time,
            vanished_pods=tuple(pod for pod in state.pods if pod.uid not in existing),
            start_problems=await self._start_problems.of(job, state, owned),
            nodes=await self._nodes.observe(owned),
            responding_pods=responding,
            silent_pods=silent,
            network_policy_is_current=state.has_network_policy or self._settings.network_policy_peers is None,
        )

    def _workload_hash(self, state: JobState, document: FineTuneJob) -> str:
        """The hash of the Workload that the job should have; it needs a rendered pod, so it is computed once per document."""
        if state.workload_hash is None or state.workload_hash[0] is not document:
            state.workload_hash = document, builders.workload_hash(document, self._settings)
        return state.workload_hash[1]

    def remember_pods(self, job: CachedJob, state: JobState, observed: ObservedState) -> None:
        """Remember the pods of a job after a reconcile, so that the next one notices which of them have vanished.

        A pod that vanished during the reconcile is not in the cache any more, and no reconcile has noticed that.
        """
        cached = (pod for pod in self._cache.pods(job.key) if pod.job_uid == job.uid)
        state.pods = tuple({pod.uid: pod for pod in (*observed.pods, *observed.retained_pods, *cached)}.values())

    async def refresh_pods(self, key: JobKey) -> None:
        """Update the cached pods of one job with a consistent read from the API server."""
        snapshot, pods = await self._client.pods_of(key, names.JOB_LABEL)
        for body in pods:
            self._cache.put_pod(body)
        self._cache.remove_deleted_pods(key, snapshot)


def _may_need_pods(job: FineTuneJob, status: JobStatus, pods: list[Pod]) -> bool:
    """Whether this reconcile may create pods. It may replace a failed pod at once, and keep it for its log."""
    if job.spec.run_policy.suspend or is_finished(status):
        return False
    present = {pod.index for pod in pods if not pod.is_finished and not pod.is_being_deleted}
    return not present.issuperset(range(job.spec.workers.nodes))


def _current_run(state: JobState, pods: list[Pod]) -> RunStatus | None:
    """The run status that the first pod reported; None if it came from a pod that has been replaced."""
    for pod in pods:
        if pod.index == 0:
            return state.run if pod.uid == state.run_pod_uid else None
    return None
