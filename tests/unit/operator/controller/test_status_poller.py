"""The status poller, with an HTTP server instead of the agents."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from collections.abc import Collection
from typing import Any

import pytest
from aiohttp import web
from tests.support.fake_kubernetes import job_body, pod_body
from tests.support.waiting import reached

from finetune_operator.controller.informer_cache import InformerCache
from finetune_operator.controller.status_poller import StatusPoller
from finetune_trainer.protocol.outcome import RunStatus

OWNED = {"ownerReferences": [{"uid": "job-uid", "controller": True}]}


def owned_pod(**changes: Any) -> dict[str, Any]:
    body = pod_body(10, phase="Running", podIP="127.0.0.1")
    body["metadata"] |= OWNED | changes.pop("metadata", {})
    body["status"] |= {"containerStatuses": [{"name": "trainer", "state": {"running": {}}}]} | changes
    return body


async def run(poller: StatusPoller, results: Collection[object] | None, count: int = 1) -> None:
    """Run a poller until it has added so many results, or for a few intervals if nothing is to be requested."""
    task = asyncio.create_task(poller.run())
    if results is None:
        await asyncio.sleep(0.1)
    else:
        await reached(lambda: len(results) >= count)
    assert not task.done(), "the poller goes on"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def poll(
    text: str, pod: dict[str, Any], job: dict[str, Any] | None = None, is_requested: bool = True
) -> list[RunStatus]:  # fmt: skip
    """The run statuses that a poller receives from a pod, which it requests or not."""

    async def progress(_request: web.Request) -> web.Response:
        return web.Response(text=text, status=200 if text else 503)

    application = web.Application()
    application.router.add_get("/progress", progress)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    cache, received, results = InformerCache(), [], []
    cache.put_job(job or job_body(1))
    cache.put_pod(pod)
    port = runner.addresses[0][1]
    poller = StatusPoller(cache, 0.01, lambda _job, _uid, run: received.append(run), port, on_poll=results.append)
    await run(poller, results if is_requested else None)
    await runner.cleanup()
    assert bool(results) == is_requested
    return received


async def test_reports_valid_responses() -> None:
    received = await poll('{"activity": "Training", "progress": {"step": 3, "totalSteps": 9}, "later": 1}', owned_pod())
    assert received
    assert (received[0].activity, received[0].progress.step) == ("Training", 3)


@pytest.mark.parametrize("text", ["", "no json", '{"progress": 7}'])
async def test_ignores_invalid_responses(text: str) -> None:
    assert await poll(text, owned_pod()) == []


FINISHED = job_body(1)
FINISHED["status"] = {"phase": "Succeeded", "completionTime": "2026-01-01T12:00:00Z"}


@pytest.mark.parametrize(
    ("pod", "job"),
    [
        (owned_pod(phase="Succeeded"), None),
        (owned_pod(podIP=""), None),
        (owned_pod(metadata={"ownerReferences": []}), None),
        (owned_pod(metadata={"deletionTimestamp": "2026-01-01T12:00:00Z"}), None),
        (owned_pod(), FINISHED),
    ],
    ids=["finished", "no address", "not owned", "being deleted", "job finished"],
)
async def test_does_not_poll_pod(pod: dict[str, Any], job: dict[str, Any] | None) -> None:
    assert await poll('{"activity": "Training"}', pod, job, is_requested=False) == []


STATUS = b'{"activity": "Training", "progress": {"step": 3}}'


async def poll_bytes(*parts: bytes, results: set[str] | None = None) -> list[RunStatus]:
    """The run statuses from a server that sends these bytes, with a pause between the parts, and closes the connection.

    The results of the requests are added to `results`.
    """

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    cache, received = InformerCache(), []
    cache.put_job(job_body(1))
    cache.put_pod(owned_pod())
    port = server.sockets[0].getsockname()[1]
    polls: list[str] = []
    poller = StatusPoller(cache, 0.01, lambda _job, _uid, run: received.append(run), port, on_poll=polls.append)
    await run(poller, polls, 3)
    server.close()
    if results is not None:
        results.update(polls)
    return received


async def test_reads_a_response_that_arrives_in_parts() -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(STATUS)}\r\n\r\n".encode()
    received = await poll_bytes(head + STATUS[:10], STATUS[10:])
    assert received
    assert received[0].progress.step == 3


@pytest.mark.parametrize(
    ("response", "result"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + STATUS, "unreachable", id="shorter than announced"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", "unreachable", id="broken off chunk"),
        pytest.param(b"", "unreachable", id="closed"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n", "invalid", id="bad chunk"),
        pytest.param(b"no HTTP at all\r\n\r\n", "invalid", id="no HTTP"),
        pytest.param(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "invalid", id="error status"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", "invalid", id="no content"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "invalid", id="no object"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b'{"activity": "Training\\n"}', "invalid", id="no activity"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b'{"progress": {"step": 1e30}}', "invalid", id="huge number"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n" + STATUS, "invalid", id="long header"),
    ],
)
async def test_a_broken_response_does_not_stop_poller(response: bytes, result: str, caplog: pytest.LogCaptureFixture) -> None:
    results: set[str] = set()
    assert await poll_bytes(response, results=results) == []
    assert result in results
    warnings = [line for line in caplog.messages if "the answer of pod j-0 to GET /progress is ignored" in line]
    assert len(warnings) == (1 if result == "invalid" else 0), "an invalid answer is logged once per pod"


async def test_ignores_a_response_without_end() -> None:
    results: set[str] = set()
    assert await poll_bytes(b"HTTP/1.1 200 OK\r\n\r\n", *[b" " * 40_000] * 3, results=results) == []
    assert results == {"invalid"}


async def test_does_not_unpack_a_compressed_response() -> None:
    bomb = gzip.compress(b" " * 100_000_000)
    assert len(bomb) > 65536
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
    tracemalloc.start()
    try:
        assert await poll_bytes(head + bomb) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_does_not_follow_redirects(status: int) -> None:
    """The image of a job is its user's, who could otherwise read what the operator's network reaches."""
    visited: list[str] = []

    async def internal(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visited.append((await reader.readline()).decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(STATUS) + STATUS)
        writer.close()

    server = await asyncio.start_server(internal, "127.0.0.1", 0)
    location = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/latest/meta-data"
    response = f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    results: set[str] = set()
    assert await poll_bytes(response, results=results) == []
    assert (visited, results) == ([], {"invalid"})
    server.close()


async def test_uses_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert await poll_bytes(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(STATUS) + STATUS)


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1@127.0.0.2", "127.0.0.1/x?", "127.1"])
async def test_requests_only_ip_addresses(address: str) -> None:
    assert await poll('{"activity": "Training"}', owned_pod(podIP=address)) == []


async def test_unreachable_pod_does_not_stop_poller() -> None:
    pod = owned_pod(podIP="127.0.0.2")
    cache = InformerCache()
    cache.put_job(job_body(1))
    cache.put_pod(pod)
    received: list[RunStatus] = []
    results: list[str] = []
    poller = StatusPoller(cache, 0.01, lambda _job, _uid, run: received.append(run), port=1, on_poll=results.append)
    await run(poller, results)
    assert received == []
    assert set(results) == {"unreachable"}


@pytest.mark.parametrize(
    ("index", "changes", "address", "text", "expected"),
    [
        (0, {}, "127.0.0.1", "{}", {True}),
        (0, {}, "127.0.0.1", "no json", {True}),
        (0, {}, "127.0.0.1", "", {True}),
        (0, {}, "127.0.0.2", "{}", {False}),
        (1, {}, "127.0.0.1", "{}", set()),
        (1, {"lost": True}, "127.0.0.1", "{}", {True}),
        (1, {"lost": True}, "127.0.0.2", "{}", {False}),
        (1, {"lost": True, "deleted": True}, "127.0.0.1", "{}", {True}),
    ],
    ids=[
        "first pod",
        "nonsense",
        "error status",
        "silent",
        "healthy peer",
        "lost peer",
        "silent lost peer",
        "terminating lost peer",
    ],
)
async def test_reports_which_pods_answer(
    index: int, changes: dict[str, bool], address: str, text: str, expected: set[bool]
) -> None:
    """Every pod of a lost node is asked, not only the first one, because its answer keeps it from being replaced."""

    async def progress(_request: web.Request) -> web.Response:
        return web.Response(text=text, status=200 if text else 503)

    application = web.Application()
    application.router.add_get("/progress", progress)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    pod = owned_pod(podIP=address)
    pod["metadata"]["labels"] |= {"finetune-operator.io/node-rank": str(index)}
    if changes.get("deleted"):
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    cache, contacts, runs = InformerCache(), [], []
    cache.put_job(job_body(1))
    cache.put_pod(pod)
    poller = StatusPoller(
        cache,
        0.01,
        lambda _job, _uid, run: runs.append(run),
        port=runner.addresses[0][1],
        on_contact=lambda _job, uid, has_answered: contacts.append((uid, has_answered)),
        may_be_lost=lambda _pod: changes.get("lost", False),
    )
    await run(poller, contacts if expected else None)
    await runner.cleanup()
    assert set(contacts) == {("pod-uid", has_answered) for has_answered in expected}
    if index:
        assert runs == [], "only the first pod reports the progress of the run"
