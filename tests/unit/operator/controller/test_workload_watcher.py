"""The watch of Kueue Workloads, over HTTP with a server that a test tells what to answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration
from tests.support.fake_kubernetes import KEY, job_body
from tests.support.waiting import reached

from finetune_operator.client.kubernetes import KubernetesClient
from finetune_operator.client.types import JobKey
from finetune_operator.controller import workload_watcher
from finetune_operator.controller.informer_cache import InformerCache
from finetune_operator.controller.workload_watcher import WorkloadWatcher


def body(resource_version: int, uid: str = "w", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": uid,
            "namespace": "team",
            "uid": uid,
            "resourceVersion": str(resource_version),
            "labels": {"finetune-operator.io/job": "j"},
            "ownerReferences": [{"uid": "job-uid", "controller": True}],
        },
        "spec": {"queueName": "team-queue"},
        "status": status,
    }


class Kueue:
    """Serves one list of Workloads (a status other than 200 fails it), and sends the events of `events` to the watch."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.list_status, self.lists = 200, 0
        self.events: asyncio.Queue[list[bytes] | None] = asyncio.Queue()
        self.changed: list[JobKey] = []
        self.queries: list[dict[str, str]] = []

    async def respond(self, request: web.Request) -> web.StreamResponse:
        self.queries.append(dict(request.query))
        if "watch" not in request.query:
            self.lists += 1
            answer = {"metadata": {"resourceVersion": "7"}, "items": self.items}
            return web.json_response(answer, status=self.list_status)
        response = web.StreamResponse()
        await response.prepare(request)
        while (chunks := await self.events.get()) is not None:
            for chunk in chunks:
                await response.write(chunk)
                await asyncio.sleep(0.01)
        return response

    async def send(self, event_type: str, item: dict[str, Any], parts: int = 1) -> None:
        """Send an event, divided into several TCP segments."""
        text = json.dumps({"type": event_type, "object": item}).encode() + b"\n"
        size = -(-len(text) // parts)
        await self.events.put([text[start : start + size] for start in range(0, len(text), size)])


@asynccontextmanager
async def watching(kueue: Kueue) -> AsyncIterator[InformerCache]:
    application = web.Application()
    application.router.add_route("GET", "/{path:.*}", kueue.respond)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    client = KubernetesClient(ApiClient(Configuration(host=f"http://{host}:{port}")))
    cache, needed = InformerCache(), asyncio.Event()
    cache.put_job(job_body(1, scheduling={"queueName": "team-queue"}))
    task = asyncio.create_task(WorkloadWatcher(cache, client, (), needed, kueue.changed.append).run())
    await asyncio.sleep(0.05)
    assert kueue.lists == 0, "nothing is watched before a job needs it"
    needed.set()
    try:
        yield cache
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await kueue.events.put(None)
        await client.close()
        await runner.cleanup()


async def test_follows_changes() -> None:
    kueue = Kueue()
    kueue.items = [body(5)]
    async with watching(kueue) as cache:
        await reached(lambda: cache.workload(KEY, "job-uid") is not None)
        assert cache.workload_state("team") == (True, None)
        admitted = {"type": "Admitted", "status": "True", "lastTransitionTime": "2026-01-01T12:00:00Z"}
        await kueue.send("MODIFIED", body(8, conditions=[admitted]), parts=3)
        await reached(lambda: (workload := cache.workload(KEY, "job-uid")) is not None and workload.may_run)
        await kueue.send("DELETED", body(9))
        await reached(lambda: cache.workload(KEY, "job-uid") is None)
        assert kueue.changed == [KEY] * 4, "the list, the end of the wait for it, and two events"
        assert kueue.queries[1] == {
            "labelSelector": "finetune-operator.io/job", "watch": "true", "resourceVersion": "7", "timeoutSeconds": "600",
        }  # fmt: skip


async def test_lists_again_after_the_watch_has_ended_or_expired() -> None:
    kueue = Kueue()
    kueue.items = [body(5)]
    async with watching(kueue) as cache:
        await reached(lambda: cache.workload(KEY, "job-uid") is not None)
        kueue.items = []
        await kueue.events.put(None)
        await reached(lambda: cache.workload(KEY, "job-uid") is None)
        kueue.items = [body(12, uid="other")]
        await kueue.send("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})
        await reached(lambda: cache.workload(KEY, "job-uid") is not None)


@pytest.mark.parametrize(("status", "words"), [(404, "not installed"), (403, "may not read Workloads")])
async def test_reports_missing_kueue_until_it_is_installed(status: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload_watcher, "INITIAL_DELAY", 0.05)
    kueue = Kueue()
    kueue.list_status = status
    async with watching(kueue) as cache:
        await reached(lambda: cache.workload_state("team")[1] is not None)
        synced, error = cache.workload_state("team")
        assert synced
        assert error is not None
        assert error.reason == "KueueNotInstalled"
        assert words in error.message
        assert kueue.changed == [KEY], "a repeated error changes nothing"
        kueue.list_status = 200
        await reached(lambda: cache.workload_state("team") == (True, None))


async def test_keeps_workloads_while_the_api_server_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload_watcher, "INITIAL_DELAY", 0.05)
    kueue = Kueue()
    kueue.items = [body(5)]
    async with watching(kueue) as cache:
        await reached(lambda: cache.workload(KEY, "job-uid") is not None)
        kueue.list_status = 500
        await kueue.events.put(None)
        await reached(lambda: kueue.lists > 2)
        assert cache.workload(KEY, "job-uid") is not None
        assert cache.workload_state("team") == (True, None)
