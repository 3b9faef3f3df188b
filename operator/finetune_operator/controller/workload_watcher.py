"""Watches the Kueue Workloads of jobs, from the moment at which a job first names a queue.

kopf watches only resources that exist when the operator starts, and Kueue is optional: it may be installed later.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

import aiohttp

from finetune_operator import names
from finetune_operator.api.conditions import ConditionReason
from finetune_operator.builders.workload import WORKLOAD_API_VERSION
from finetune_operator.client.errors import ApiError
from finetune_operator.client.kubernetes import KubernetesClient
from finetune_operator.client.types import JobKey
from finetune_operator.controller.informer_cache import InformerCache
from finetune_operator.reconcile import ReasonMessage
from finetune_operator.reconcile.backoff import doubled

logger = logging.getLogger(__name__)

INITIAL_DELAY = 1.0  # seconds until a failed watch starts again, doubled after each failure
MAX_DELAY = 300.0
NOT_INSTALLED = ReasonMessage(
    ConditionReason.KUEUE_NOT_INSTALLED,
    "scheduling.queueName: Kueue is not installed in this cluster: install it, or remove the queue from the job.",
)
FORBIDDEN = ReasonMessage(
    ConditionReason.KUEUE_NOT_INSTALLED,
    "scheduling.queueName: the operator may not read Workloads: upgrade its chart, which grants the permission for Kueue.",
)


class WorkloadWatcher:
    """Keeps the Workloads in the informer cache up to date; `on_change` is called with the key of each affected job."""

    def __init__(
        self,
        cache: InformerCache,
        client: KubernetesClient,
        namespaces: tuple[str, ...],
        needed: asyncio.Event,
        on_change: Callable[[JobKey], None],
    ) -> None:
        self._cache, self._client, self._needed, self._on_change = cache, client, needed, on_change
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)

    async def run(self) -> None:
        """Watch until cancelled."""
        await self._needed.wait()
        async with asyncio.TaskGroup() as group:
            for namespace in self._namespaces:
                group.create_task(self._watch_forever(namespace))

    async def _watch_forever(self, namespace: str | None) -> None:
        failures = 0
        while True:
            try:
                resource_version = await self._list(namespace)
                failures = 0
                await self._watch(namespace, resource_version)
                continue  # the API server ends a watch after some minutes
            except ApiError as error:
                if error.status == 410:  # the watch lags too far behind
                    continue
                if error.status in (403, 404):
                    self._report(namespace, NOT_INSTALLED if error.status == 404 else FORBIDDEN)
                else:
                    logger.warning("the Workloads could not be watched: %s", error)
            except (aiohttp.ClientError, TimeoutError) as error:
                logger.warning("the watch of Workloads failed: %s", error)
            failures += 1
            await asyncio.sleep(doubled(INITIAL_DELAY, MAX_DELAY, failures + 1) * random.uniform(0.5, 1.0))

    async def _list(self, namespace: str | None) -> str:
        bodies, resource_version = await self._client.list_objects(WORKLOAD_API_VERSION, "Workload", namespace, names.JOB_LABEL)
        changed = self._cache.replace_workloads(namespace, bodies)
        self._report(namespace, None)
        for key in changed:
            self._on_change(key)
        return resource_version

    async def _watch(self, namespace: str | None, resource_version: str) -> None:
        events = self._client.watch_objects(WORKLOAD_API_VERSION, "Workload", namespace, names.JOB_LABEL, resource_version)
        async for event_type, body in events:
            key = self._cache.remove_workload(body) if event_type == "DELETED" else self._cache.put_workload(body)
            if key is not None:
                self._on_change(key)

    def _report(self, namespace: str | None, error: ReasonMessage | None) -> None:
        """Record whether Workloads can be read, and reconcile the queued jobs if that has changed."""
        known = self._cache.workload_errors
        if namespace in known and known[namespace] == error:
            return
        known[namespace] = error
        for key, job in self._cache.jobs.items():
            if namespace in (None, key.namespace) and job.source.names_queue:
                self._on_change(key)
