"""Progress is asked for over HTTP; the pods are played by a server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from tests.unit.operator.controller.test_informer_cache import job, pod

from finetune_operator.controller.informer_cache import InformerCache
from finetune_operator.controller.status_poller import StatusPoller
from finetune_trainer.protocol.outcome import RunStatus

OWNED = {"ownerReferences": [{"uid": "job-uid", "controller": True}]}


def a_pod(**changes: Any) -> dict[str, Any]:
    body = pod(10, phase="Running", podIP="127.0.0.1")
    body["metadata"] |= OWNED | changes.pop("metadata", {})
    body["status"] |= changes
    return body


async def poll(text: str, body: dict[str, Any], job_body: dict[str, Any] | None = None) -> list[RunStatus]:
    """What a poller hears within a few rounds."""

    async def progress(_request: web.Request) -> web.Response:
        return web.Response(text=text, status=200 if text else 503)

    application = web.Application()
    application.router.add_get("/progress", progress)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    cache, heard = InformerCache(), []
    cache.put_job(job_body or job(1))
    cache.put_pod(body)
    poller = StatusPoller(cache, 0.01, lambda _job, _uid, run: heard.append(run), port=runner.addresses[0][1])
    task = asyncio.create_task(poller.run())
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await runner.cleanup()
    return heard


async def test_answers_are_handed_on() -> None:
    heard = await poll('{"activity": "Training", "progress": {"step": 3, "totalSteps": 9}, "later": 1}', a_pod())
    assert heard
    assert (heard[0].activity, heard[0].progress.step) == ("Training", 3)


@pytest.mark.parametrize("text", ["", "no json", '{"progress": 7}'])
async def test_what_cannot_be_understood_is_left_out(text: str) -> None:
    assert await poll(text, a_pod()) == []


FINISHED = job(1)
FINISHED["status"] = {"phase": "Succeeded", "completionTime": "2026-01-01T12:00:00Z"}


@pytest.mark.parametrize(
    ("body", "job_body"),
    [
        (a_pod(phase="Succeeded"), None),
        (a_pod(podIP=""), None),
        (a_pod(metadata={"ownerReferences": []}), None),
        (a_pod(metadata={"deletionTimestamp": "2026-01-01T12:00:00Z"}), None),
        (a_pod(), FINISHED),
    ],
    ids=["ended", "no address", "a stranger", "being deleted", "job is over"],
)
async def test_who_is_not_asked(body: dict[str, Any], job_body: dict[str, Any] | None) -> None:
    assert await poll('{"activity": "Training"}', body, job_body) == []


async def test_a_pod_that_does_not_answer_is_no_error() -> None:
    body = a_pod(podIP="127.0.0.2")
    cache = InformerCache()
    cache.put_job(job(1))
    cache.put_pod(body)
    heard: list[RunStatus] = []
    poller = StatusPoller(cache, 0.01, lambda _job, _uid, run: heard.append(run), port=1)
    task = asyncio.create_task(poller.run())
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()
    assert heard == []
