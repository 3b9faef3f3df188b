"""The kopf handlers: they update the informer cache and put the keys of changed jobs into the work queue.

Only index and event handlers are registered, because those leave no finalizers, annotations or status on any object.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Iterator
from typing import Any

import kopf

from finetune_operator import names
from finetune_operator.api import GROUP, PLURAL, VERSION
from finetune_operator.controller.informer_cache import job_key, pod_job_key
from finetune_operator.controller.kopf_storage import NoDiffBaseStorage, NoProgressStorage
from finetune_operator.controller.manager import Manager
from finetune_operator.controller.watch_restart import restart_failed_watches
from finetune_operator.settings import Settings

JOBS = (GROUP, VERSION, PLURAL)
PODS = ("", "v1", "pods")
WATCH_SERVER_TIMEOUT = 600  # seconds until the API server closes a watch
WATCH_CLIENT_TIMEOUT = 660  # seconds until a watch without a response counts as dead
LIST_CHUNK_SIZE = 500
FIRST_BACKOFF = 0.5  # seconds
MAX_BACKOFF = 60.0


class Backoffs:
    """Delays in seconds between the attempts of kopf to list or watch: they double, and never end.

    kopf's own delays end after a minute, and with them the operator.
    """

    def __iter__(self) -> Iterator[float]:
        """The delays of one request."""
        delay = FIRST_BACKOFF
        while True:
            yield delay * random.uniform(1, 1.25)
            delay = min(2 * delay, MAX_BACKOFF)


def build_registry(manager: Manager) -> kopf.OperatorRegistry:
    """All handlers, bound to one manager."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(login)
    _register_lifecycle(registry, manager)
    _register_jobs(registry, manager)
    _register_pods(registry, manager)
    return registry


def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Log in with the service account, or else with kubeconfig. kopf calls this again when a token has expired."""
    return kopf.login_via_client(**kwargs)


def build_kopf_settings(settings: Settings) -> kopf.OperatorSettings:
    """kopf settings: no events posted, no state stored in objects, only two kinds watched, dead watches detected."""
    result = kopf.OperatorSettings()
    result.posting.enabled = False
    result.peering.standalone = True
    result.scanning.disabled = True
    result.persistence.diffbase_storage = NoDiffBaseStorage()
    result.persistence.progress_storage = NoProgressStorage()
    result.networking.request_timeout = settings.api_timeout
    result.networking.error_backoffs = Backoffs()
    result.watching.server_timeout = WATCH_SERVER_TIMEOUT
    result.watching.client_timeout = WATCH_CLIENT_TIMEOUT
    result.watching.connect_timeout = settings.api_timeout
    result.watching.chunk_size = LIST_CHUNK_SIZE
    # The API server filters by label, so that unrelated pods are never sent to the operator.
    result.watching.label_selectors[PODS] = names.JOB_LABEL
    return result


def _register_lifecycle(registry: kopf.OperatorRegistry, manager: Manager) -> None:
    @kopf.on.startup(registry=registry)
    async def start(**_: Any) -> None:
        await manager.start()

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        await manager.stop()


def _register_jobs(registry: kopf.OperatorRegistry, manager: Manager) -> None:
    # At startup kopf calls index handlers before event handlers, so no job is reconciled before all pods are cached.
    @kopf.index(*JOBS, registry=registry, id="jobs")
    async def cache_job(body: kopf.Body, **_: Any) -> None:
        if manager.cache.put_job(dict(body)).source.names_queue:
            manager.workloads_needed.set()

    @kopf.on.event(*JOBS, registry=registry, id="job")
    async def enqueue_job(event: kopf.RawEvent, **_: Any) -> None:
        body: dict[str, Any] = dict(event["object"])
        key = job_key(body)
        if event["type"] == "DELETED":
            manager.cache.remove_job(key, body["metadata"]["uid"])
        job = manager.cache.jobs.get(key)
        if job is None or not manager.states.is_own_write(job):
            manager.enqueue(key)


def _register_pods(registry: kopf.OperatorRegistry, manager: Manager) -> None:
    @kopf.index(*PODS, registry=registry, id="pods", labels={names.JOB_LABEL: kopf.PRESENT})
    async def cache_pod(body: kopf.Body, **_: Any) -> None:
        if manager.cache.put_pod(dict(body)):
            manager.changed_pods.add(pod_job_key(dict(body)))

    @kopf.on.event(*PODS, registry=registry, id="pod", labels={names.JOB_LABEL: kopf.PRESENT})
    async def enqueue_job_of_pod(event: kopf.RawEvent, **_: Any) -> None:
        body: dict[str, Any] = dict(event["object"])
        key = pod_job_key(body)
        if event["type"] == "DELETED":
            manager.cache.remove_pod(key, body["metadata"]["uid"])
            manager.enqueue(key)
        elif key in manager.changed_pods:
            manager.changed_pods.discard(key)
            manager.enqueue(key)


async def run(manager: Manager) -> None:
    """Run the operator until a termination signal arrives."""
    namespaces = manager.settings.watched_namespaces
    # kopf's default identity contains the user name, but the user id of a container may have no name.
    os.environ.setdefault("POD_ID", socket.gethostname())
    restart_failed_watches(manager.resync_needed.set)
    await kopf.operator(
        registry=build_registry(manager),
        settings=build_kopf_settings(manager.settings),
        clusterwide=not namespaces,
        namespaces=namespaces,
    )
    # kopf leaves its watch streams open, and the event loop reports each of them as an error when it closes.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
