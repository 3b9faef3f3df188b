"""The running operator: its parts and the tasks that keep them going."""

from __future__ import annotations

import asyncio
import logging
import os

import aiohttp
from aiohttp import web

from finetune_operator.client.kubernetes import ApiError, KubernetesClient, connect
from finetune_operator.controller.informer_cache import CachedJob, InformerCache, JobKey
from finetune_operator.controller.metrics import Metrics
from finetune_operator.controller.reconciler import Reconciler
from finetune_operator.controller.server import serve
from finetune_operator.controller.status_poller import StatusPoller
from finetune_operator.controller.workqueue import WorkQueue
from finetune_operator.settings import Settings
from finetune_trainer.protocol.outcome import RunStatus

logger = logging.getLogger(__name__)


class Manager:
    """Parts that need an event loop come to life in `start`."""

    controller: Reconciler

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.cache = InformerCache()
        self.metrics = Metrics()
        self.queue: WorkQueue[JobKey] = WorkQueue(on_error=self.metrics.reconcile_errors.inc)
        self.changed_pods: set[JobKey] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: web.AppRunner | None = None

    async def start(self) -> None:
        """Connect, and begin to work on what the watches will put into the queue."""
        settings = self.settings
        cluster = KubernetesClient(await connect(), settings.api_connections, settings.api_timeout, self.metrics.requested)
        instance = os.environ.get("HOSTNAME", "finetune-operator")
        self.controller = Reconciler(self.cache, cluster, settings, self.metrics, instance=instance)
        poller = StatusPoller(self.cache, settings.progress_interval, self._news)
        self.metrics.watch(self.cache, self.queue.stalled_for)
        self._server = await serve(
            settings.http_address, settings.http_port, self.metrics.registry, self.queue.stalled_for, settings.stalled_after
        )
        for name, work in {
            "reconcile": self.queue.run(settings.workers, self.controller.reconcile),
            "progress": poller.run(),
            "resync": self._resync(),
        }.items():
            task = asyncio.create_task(work, name=name)
            task.add_done_callback(_die_with)
            self._tasks.append(task)
        logger.info("the operator is up; trainer image %s", settings.trainer_image)

    async def stop(self) -> None:
        """Stop at once. Every pass that is cut short is done again by the next operator."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.cleanup()
        await self.controller.cluster.close()

    def _news(self, job: CachedJob, pod_uid: str, run: RunStatus) -> None:
        if self.controller.keep_run(job, pod_uid, run):
            self.queue.add(job.key)

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(self.settings.resync_interval)
            try:
                changed = await self.controller.resync()
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                logger.warning("the caches could not be compared with the cluster: %s", error)
                continue
            for key in changed:
                self.queue.add(key)


def _die_with(task: asyncio.Task[None]) -> None:
    """An operator without one of its parts must not look alive: end the process, and Kubernetes starts a new one."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.critical("the task %r ended: the operator stops", task.get_name(), exc_info=error)
        os._exit(1)
