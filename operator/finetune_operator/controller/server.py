"""HTTP server of the operator: /metrics for Prometheus, /healthz and /readyz for the kubelet."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder


async def serve(
    address: str, port: int, registry: CollectorRegistry, unready_reason: Callable[[], str | None]
) -> web.AppRunner:
    """Start the server; `cleanup()` of the result stops it.

    /healthz, the liveness probe, shows only that the event loop turns: a restart would not cure anything else, least of all an
    API server that does not respond. /readyz responds with 503 and the reason while `unready_reason` returns one.
    """

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def live(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(_request: web.Request) -> web.Response:
        reason = unready_reason()
        return web.Response(text=f"{reason or 'ok'}\n", status=200 if reason is None else 503)

    application = web.Application()
    application.add_routes([web.get("/metrics", metrics), web.get("/healthz", live), web.get("/readyz", ready)])
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    return runner
