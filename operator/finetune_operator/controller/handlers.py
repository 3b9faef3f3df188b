"""What kopf calls: it logs in, watches and keeps the watches alive. Every event only says "look again".

There are index and event handlers only: those leave no finalizers, annotations or status on any object.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import kopf

from finetune_operator import names
from finetune_operator.api import GROUP, PLURAL, VERSION
from finetune_operator.controller.informer_cache import CachedJob, job_key, pod_key
from finetune_operator.controller.kopf_storage import NoDifferences, NoProgress
from finetune_operator.controller.manager import Manager
from finetune_operator.settings import Settings

JOBS = (GROUP, VERSION, PLURAL)
PODS = ("", "v1", "pods")


def registry_of(operator: Manager) -> kopf.OperatorRegistry:
    """All handlers, bound to one operator."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(login)
    _add_life(registry, operator)
    _add_jobs(registry, operator)
    _add_pods(registry, operator)
    return registry


def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """In the cluster with the service account, elsewhere with kubeconfig; kopf asks again when a token has expired."""
    return kopf.login_via_client(**kwargs)


def kopf_settings(settings: Settings) -> kopf.OperatorSettings:
    """kopf's own settings: nothing is posted, nothing but the two kinds is observed, dead watches are noticed."""
    result = kopf.OperatorSettings()
    result.posting.enabled = False
    result.peering.standalone = True
    result.scanning.disabled = True
    result.persistence.diffbase_storage = NoDifferences()
    result.persistence.progress_storage = NoProgress()
    result.networking.request_timeout = settings.api_timeout
    result.watching.server_timeout = 600
    result.watching.client_timeout = 660
    result.watching.connect_timeout = settings.api_timeout
    result.watching.chunk_size = 500
    # The API server filters, so that other people's pods never get here.
    result.watching.label_selectors[PODS] = names.JOB_LABEL
    return result


def _add_life(registry: kopf.OperatorRegistry, operator: Manager) -> None:
    @kopf.on.startup(registry=registry)
    async def start(**_: Any) -> None:
        await operator.start()

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        await operator.stop()


def _add_jobs(registry: kopf.OperatorRegistry, operator: Manager) -> None:
    # Indices come before all events at the start, so that no job is looked at before all pods are known.
    @kopf.index(*JOBS, registry=registry, id="jobs")
    async def remember(body: kopf.Body, **_: Any) -> None:
        operator.cache.put_job(dict(body))

    @kopf.on.event(*JOBS, registry=registry, id="job")
    async def look_again(event: kopf.RawEvent, **_: Any) -> None:
        body: dict[str, Any] = dict(event["object"])
        key = job_key(body)
        if event["type"] == "DELETED":
            operator.cache.drop_job(key, body["metadata"]["uid"])
        job: CachedJob | None = operator.cache.jobs.get(key)
        if job is None or not operator.controller.wrote(job):
            operator.queue.add(key)


def _add_pods(registry: kopf.OperatorRegistry, operator: Manager) -> None:
    @kopf.index(*PODS, registry=registry, id="pods", labels={names.JOB_LABEL: kopf.PRESENT})
    async def remember(body: kopf.Body, **_: Any) -> None:
        if operator.cache.put_pod(dict(body)):
            operator.changed_pods.add(pod_key(dict(body)))

    @kopf.on.event(*PODS, registry=registry, id="pod", labels={names.JOB_LABEL: kopf.PRESENT})
    async def look_again(event: kopf.RawEvent, **_: Any) -> None:
        body: dict[str, Any] = dict(event["object"])
        key = pod_key(body)
        if event["type"] == "DELETED":
            operator.cache.drop_pod(key, body["metadata"]["uid"])
            operator.queue.add(key)
        elif key in operator.changed_pods:
            operator.changed_pods.discard(key)
            operator.queue.add(key)


async def run(operator: Manager) -> None:
    """Run until a signal comes."""
    namespaces = operator.settings.served_namespaces
    # Left to itself kopf names itself after the user, and a container's user id need not have a name.
    os.environ.setdefault("POD_ID", socket.gethostname())
    await kopf.operator(
        registry=registry_of(operator),
        settings=kopf_settings(operator.settings),
        clusterwide=not namespaces,
        namespaces=namespaces,
    )
    # kopf leaves its watch streams to the closing loop, which complains about them although all is well.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
