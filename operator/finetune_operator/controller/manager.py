"""The manager owns the parts of the operator and runs their background tasks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import uuid
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

from finetune_operator import names
from finetune_operator.client.errors import REQUEST_ERRORS, retry_after
from finetune_operator.client.kubernetes import KubernetesClient, connect
from finetune_operator.client.types import JobKey
from finetune_operator.controller.event_recorder import EventRecorder
from finetune_operator.controller.informer_cache import NO_PROFILES, CachedJob, InformerCache
from finetune_operator.controller.job_state import JobStates
from finetune_operator.controller.leader_election import LeaderElection
from finetune_operator.controller.metrics import Metrics
from finetune_operator.controller.node_monitor import NodeMonitor
from finetune_operator.controller.reconciler import Reconciler
from finetune_operator.controller.server import serve
from finetune_operator.controller.status_poller import StatusPoller
from finetune_operator.controller.workload_watcher import WorkloadWatcher
from finetune_operator.controller.workqueue import WorkQueue
from finetune_operator.profiles import Profiles
from finetune_operator.settings import Settings
from finetune_trainer.protocol.outcome import RunStatus

logger = logging.getLogger(__name__)

FIRST_LIST_DELAY = 0.2  # seconds between the first checks that the cache is complete; doubled up to MAX_FIRST_LIST_DELAY
MAX_FIRST_LIST_DELAY = 30.0
RESYNC_PAUSE = 5.0  # seconds at least between two resyncs, because watches that end often list all objects, too
STOP_SECONDS = 2.0  # for the events that still wait when the operator stops


class LeaseLostError(Exception):
    """This process is not the leader any more."""


class Manager:
    """Owns cache, queue and metrics; `start` creates the parts that need an event loop.

    Every replica fills its cache, but only the leader reconciles jobs and polls their progress.
    """

    def __init__(self, settings: Settings, profiles: Profiles = NO_PROFILES) -> None:
        self.settings = settings
        self.cache = InformerCache(profiles)
        self.states = JobStates()
        self.metrics = Metrics()
        self.queue: WorkQueue[JobKey] = WorkQueue(
            on_error=self.metrics.reconcile_errors.inc, minimum_delay=retry_after, expected_errors=REQUEST_ERRORS
        )
        self.has_listed = False
        self.changed_pods: set[JobKey] = set()
        self.workloads_needed = asyncio.Event()
        self.resync_needed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: web.AppRunner | None = None
        self._clients: list[KubernetesClient] = []
        self._election: LeaderElection | None = None
        self._is_leading = not settings.lease
        self._events: EventRecorder | None = None

    async def start(self) -> None:
        """Connect to the API server and start the background tasks."""
        settings, metrics = self.settings, self.metrics
        if settings.lease:
            # Connections of its own: requests of the reconciles must not delay the renewal.
            election_client = KubernetesClient(await connect(), on_request=metrics.count_request)
            self._clients.append(election_client)
            namespace, _, name = settings.lease.partition("/")
            identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
            self._election = LeaderElection(election_client, namespace, name, identity)
        client = KubernetesClient(
            await connect(),
            settings.api_connections,
            settings.api_timeout,
            on_request=metrics.count_request,
            may_write=self._election.is_leader if self._election is not None else lambda: True,
        )
        self._clients.append(client)
        metrics.watch(self.cache, self.queue.oldest_wait, lambda: self._is_leading)
        self._server = await serve(settings.http_address, settings.http_port, metrics.registry, self.unready_reason)
        workload_watcher = WorkloadWatcher(self.cache, client, settings.watched_namespaces, self.workloads_needed, self.enqueue)
        self._start_task("workloads", workload_watcher.run())
        self._start_task("first list", self._wait_for_first_list(client))
        self._start_task("resync", self._resync_periodically(client))
        self._start_task("leader election", self._lead_when_elected(client))
        logger.info("the operator has started; trainer image %s", settings.trainer_image)

    async def stop(self) -> None:
        """Stop all tasks, then let another replica lead. The next leader repeats every reconcile that is interrupted."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._events is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._events.send_waiting(), STOP_SECONDS)
        if self._election is not None:
            await self._election.release()
        if self._server is not None:
            await self._server.cleanup()
        for client in self._clients:
            await client.close()

    def enqueue(self, key: JobKey) -> None:
        """Reconcile a job, unless another replica leads; a new leader reconciles all jobs."""
        if self._is_leading:
            self.queue.add(key)

    async def _lead_when_elected(self, client: KubernetesClient) -> None:
        if self._election is not None:
            logger.info("waiting for the Lease %s", self.settings.lease)
            await self._election.acquire()
        self._lead(client)
        if self._election is not None:
            await self._election.renew()
            raise LeaseLostError(self.settings.lease)

    def _lead(self, client: KubernetesClient) -> None:
        settings = self.settings
        instance = os.environ.get("HOSTNAME", "finetune-operator")
        nodes = NodeMonitor(client)
        reconciler = Reconciler(self.cache, self.states, client, settings, self.metrics, instance=instance, nodes=nodes)
        poller = StatusPoller(
            self.cache,
            settings.progress_interval,
            self._record_run,
            on_poll=self.metrics.count_poll,
            on_contact=self._record_contact,
            may_be_lost=nodes.may_be_lost,
        )
        self._events = reconciler.events
        self._is_leading = True
        jobs = self.cache.jobs
        for key in sorted(jobs, key=lambda key: not jobs[key].is_active):  # finished jobs can wait
            self.queue.add(key)
        self._start_task("reconcile", self.queue.run(settings.workers, reconciler.reconcile))
        self._start_task("events", reconciler.events.run())
        self._start_task("progress", poller.run())

    def _start_task(self, name: str, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine, name=name)
        task.add_done_callback(_exit_on_failure)
        self._tasks.append(task)

    def unready_reason(self) -> str | None:
        """Why jobs are not reconciled as they should be, for the readiness probe; None if they are."""
        if not self.has_listed:
            return "the jobs and pods of the cluster are not all in the cache yet"
        seconds = self.queue.oldest_wait()
        if seconds > self.settings.stalled_after:
            return f"a job has waited {seconds:.0f} s for its reconcile"
        return None

    async def resync(self, client: KubernetesClient) -> set[JobKey]:
        """Remove objects from the cache that no longer exist. Returns the keys of the affected jobs."""
        changed: set[JobKey] = set()
        for namespace in self.settings.watched_namespaces or (None,):
            jobs = await client.list_jobs(namespace)
            pods = await client.list_pods(namespace, names.JOB_LABEL)
            changed |= self.cache.remove_deleted(jobs, pods, namespace)
        return changed

    async def has_all_objects(self, client: KubernetesClient) -> bool:
        """Whether the cache contains all jobs and pods of the cluster."""
        for namespace in self.settings.watched_namespaces or (None,):
            jobs = await client.list_jobs(namespace)
            pods = await client.list_pods(namespace, names.JOB_LABEL)
            if not self.cache.contains(jobs, pods):
                return False
        return True

    async def _wait_for_first_list(self, client: KubernetesClient) -> None:
        delay = FIRST_LIST_DELAY
        while True:
            try:
                self.has_listed = await self.has_all_objects(client)
            except REQUEST_ERRORS as error:
                logger.warning("the jobs and pods of the cluster cannot be listed: %s", error)
            if self.has_listed:
                return
            await asyncio.sleep(delay * random.uniform(1, 1.25))
            delay = min(2 * delay, MAX_FIRST_LIST_DELAY)

    def _record_run(self, job: CachedJob, pod_uid: str, run: RunStatus) -> None:
        if self.states.record_run(job, pod_uid, run):
            self.enqueue(job.key)

    def _record_contact(self, job: CachedJob, pod_uid: str, has_answered: bool) -> None:
        self.states.get(job).record_contact(pod_uid, has_answered)

    async def _resync_periodically(self, client: KubernetesClient) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.resync_interval * random.uniform(1, 1.25)):
                    await self.resync_needed.wait()
            self.resync_needed.clear()
            try:
                for key in await self.resync(client):
                    self.enqueue(key)
            except REQUEST_ERRORS as error:
                logger.warning("the caches could not be compared with the cluster: %s", error)
                self.resync_needed.set()
            await asyncio.sleep(RESYNC_PAUSE * random.uniform(1, 1.25))


def _exit_on_failure(task: asyncio.Task[None]) -> None:
    """End the process when a background task fails, so that Kubernetes restarts it: it must not appear healthy."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.critical("the background task %r failed; the operator exits", task.get_name(), exc_info=error)
        os._exit(1)
