"""The manager owns the parts of the operator and runs their background tasks."""

from __future__ import annotations

import asyncio
import logging
import os

import aiohttp
from aiohttp import web

from finetune_operator import names
from finetune_operator.client.kubernetes import ApiError, KubernetesClient, connect
from finetune_operator.client.types import JobKey
from finetune_operator.controller.informer_cache import CachedJob, InformerCache
from finetune_operator.controller.job_state import JobStates
from finetune_operator.controller.metrics import Metrics
from finetune_operator.controller.reconciler import Reconciler
from finetune_operator.controller.server import serve
from finetune_operator.controller.status_poller import StatusPoller
from finetune_operator.controller.workload_watcher import WorkloadWatcher
from finetune_operator.controller.workqueue import WorkQueue
from finetune_operator.settings import Settings
from finetune_trainer.protocol.outcome import RunStatus

logger = logging.getLogger(__name__)


class Manager:
    """Owns cache, queue and metrics; `start` creates the parts that need an event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.cache = InformerCache()
        self.states = JobStates()
        self.metrics = Metrics()
        self.queue: WorkQueue[JobKey] = WorkQueue(on_error=self.metrics.reconcile_errors.inc)
        self.changed_pods: set[JobKey] = set()
        self.workloads_needed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: web.AppRunner | None = None
        self._client: KubernetesClient | None = None

    async def start(self) -> None:
        """Connect to the API server and start the background tasks."""
        settings, metrics = self.settings, self.metrics
        client = KubernetesClient(
            await connect(), settings.api_connections, settings.api_timeout, on_request=metrics.count_request
        )
        self._client = client
        instance = os.environ.get("HOSTNAME", "finetune-operator")
        reconciler = Reconciler(self.cache, self.states, client, settings, metrics, instance=instance)
        poller = StatusPoller(self.cache, settings.progress_interval, self._record_run)
        workload_watcher = WorkloadWatcher(
            self.cache, client, settings.watched_namespaces, self.workloads_needed, self.queue.add
        )
        metrics.watch(self.cache, self.queue.oldest_wait)
        self._server = await serve(
            settings.http_address, settings.http_port, metrics.registry, self.queue.oldest_wait, settings.stalled_after
        )
        tasks = {
            "reconcile": self.queue.run(settings.workers, reconciler.reconcile),
            "progress": poller.run(),
            "workloads": workload_watcher.run(),
            "resync": self._resync_periodically(client),
        }
        for name, coroutine in tasks.items():
            task = asyncio.create_task(coroutine, name=name)
            task.add_done_callback(_exit_on_failure)
            self._tasks.append(task)
        logger.info("the operator has started; trainer image %s", settings.trainer_image)

    async def stop(self) -> None:
        """Stop all tasks. The next operator process repeats every reconcile that is interrupted."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.cleanup()
        if self._client is not None:
            await self._client.close()

    async def resync(self, client: KubernetesClient) -> set[JobKey]:
        """Remove objects from the cache that no longer exist. Returns the keys of the affected jobs."""
        changed: set[JobKey] = set()
        for namespace in self.settings.watched_namespaces or (None,):
            jobs = await client.list_jobs(namespace)
            pods = await client.list_pods(namespace, names.JOB_LABEL)
            changed |= self.cache.remove_deleted(jobs, pods, namespace)
        return changed

    def _record_run(self, job: CachedJob, pod_uid: str, run: RunStatus) -> None:
        if self.states.record_run(job, pod_uid, run):
            self.queue.add(job.key)

    async def _resync_periodically(self, client: KubernetesClient) -> None:
        while True:
            await asyncio.sleep(self.settings.resync_interval)
            try:
                changed = await self.resync(client)
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                logger.warning("the caches could not be compared with the cluster: %s", error)
                continue
            for key in changed:
                self.queue.add(key)


def _exit_on_failure(task: asyncio.Task[None]) -> None:
    """End the process when a background task fails, so that Kubernetes restarts it: it must not appear healthy."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.critical("the background task %r failed; the operator exits", task.get_name(), exc_info=error)
        os._exit(1)
