"""A reverse proxy in front of an API server that fails, delays, repeats and cuts requests and watches at random."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

FAULTS = ("500", "429", "409", "delay", "repeat", "cut before", "cut after")
WATCH_FAULTS = ("repeated event", "cut watch", "expired watch", "failed watch")
MAX_DELAY = 0.5  # seconds
MAX_WATCH = 4.0  # seconds until a watch is cut
DROPPED_HEADERS = frozenset({"host", "authorization", "content-length", "transfer-encoding", "content-encoding", "connection"})


class ApiProxy:
    """Forwards requests to `target`; a share `rate` of them meets a fault. `url` is the address of the proxy itself.

    The same seed gives the same faults for the same order of requests. `counts` has the number of each fault.
    """

    def __init__(self, target: str, session: aiohttp.ClientSession, seed: int, rate: float) -> None:
        self._target, self._session, self._random = target, session, random.Random(seed)
        self.rate = rate
        self.url = ""
        self.counts: Counter[str] = Counter()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Forward one request, or let it fail."""
        body = await request.read()
        if request.query.get("watch") == "true":
            return await self._watch(request)
        fault = self._random.choice(FAULTS) if self._random.random() < self.rate else ""
        if fault == "409" and request.method == "GET":
            fault = "500"
        if fault:
            self.counts[fault] += 1
        match fault:
            case "500":
                return _failure(500, "InternalError", "etcdserver: request timed out")
            case "429":
                return _failure(429, "TooManyRequests", "too many requests", {"Retry-After": "1"})
            case "409":
                return _failure(409, "Conflict", "the object has been modified")
            case "delay":
                await asyncio.sleep(self._random.uniform(0, MAX_DELAY))
            case "repeat":
                await self._forward(request, body)
            case "cut before":
                return _cut(request)
            case "cut after":
                await self._forward(request, body)
                return _cut(request)
        return await self._forward(request, body)

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in DROPPED_HEADERS}
        url = self._target + request.path_qs
        async with self._session.request(request.method, url, data=body or None, headers=headers) as response:
            content = await response.read()
            kept = {name: value for name, value in response.headers.items() if name.lower() not in DROPPED_HEADERS}
            return web.Response(body=content, status=response.status, headers=kept)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        """Forward a watch, repeat some of its events, and cut it after a random time, or end it with an error event."""
        result = web.StreamResponse(headers={"Content-Type": "application/json"})
        async with self._session.get(self._target + request.path_qs) as response:
            result.set_status(response.status)
            await result.prepare(request)
            try:
                async with asyncio.timeout(self._random.uniform(0, MAX_WATCH) if self.rate else None):
                    async for line in response.content:
                        await result.write(line)
                        if self._random.random() < self.rate:
                            self.counts["repeated event"] += 1
                            await result.write(line)
            except TimeoutError:
                fault = self._random.choice(WATCH_FAULTS[1:])
                self.counts[fault] += 1
                if fault == "cut watch":
                    return _cut(request, result)
                code, reason = (410, "Expired") if fault == "expired watch" else (500, "InternalError")
                event = {"type": "ERROR", "object": _status(code, reason, "the watch ends in a test")}
                await result.write(json.dumps(event).encode() + b"\n")
        return result


def _failure(status: int, reason: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(_status(status, reason, message), status=status, headers=headers)


def _status(code: int, reason: str, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code}


def _cut(request: web.Request, response: Any = None) -> Any:
    """Close the connection without the rest of a response."""
    if request.transport is not None:
        request.transport.abort()
    return response or web.Response()


@asynccontextmanager
async def serving(
    target: str, connector: aiohttp.BaseConnector, headers: dict[str, str], seed: int, rate: float
) -> AsyncIterator[ApiProxy]:
    """A running proxy, which adds `headers` to every request."""
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=aiohttp.ClientTimeout()) as session:
        proxy = ApiProxy(target, session, seed, rate)
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield proxy
        finally:
            await runner.cleanup()
