"""The running operator: its parts and the tasks that keep them going."""

from __future__ import annotations

import asyncio
import logging
import os

import aiohttp
from aiohttp import web

from finetune_operator.cache import Cache, Job, Key
from finetune_operator.cluster import ApiError, Cluster, connect
from finetune_operator.controller import Controller
from finetune_operator.metrics import Metrics
from finetune_operator.polling import Poller
from finetune_operator.server import serve
from finetune_operator.settings import Settings
from finetune_operator.workqueue import WorkQueue
from finetune_trainer.outcome import RunStatus

logger = logging.getLogger(__name__)


class Operator:
    """Parts that need an event loop come to life in `start`."""

    controller: Controller

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.cache = Cache()
        self.metrics = Metrics()
        self.queue: WorkQueue[Key] = WorkQueue(on_error=self.metrics.reconcile_errors.inc)
        self.changed_pods: set[Key] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: web.AppRunner | None = None

    async def start(self) -> None:
        """Connect, and begin to work on what the watches will put into the queue."""
        settings = self.settings
        cluster = Cluster(await connect(), settings.api_connections, settings.api_timeout, self.metrics.requested)
        instance = os.environ.get("HOSTNAME", "finetune-operator")
        self.controller = Controller(self.cache, cluster, settings, self.metrics, instance=instance)
        poller = Poller(self.cache, settings.progress_interval, self._news)
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

    def _news(self, job: Job, pod_uid: str, run: RunStatus) -> None:
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
