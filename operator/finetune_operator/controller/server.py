"""/metrics for Prometheus and /healthz for the kubelet."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder


async def serve(
    address: str, port: int, registry: CollectorRegistry, stalled_for: Callable[[], float], stalled_after: float
) -> web.AppRunner:
    """Start answering; `cleanup()` of the result ends it. An answer at all proves that the event loop turns."""

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def health(_request: web.Request) -> web.Response:
        age = stalled_for()
        text = f"a job has been waiting for {age:.0f} s\n" if age > stalled_after else "ok\n"
        return web.Response(text=text, status=503 if age > stalled_after else 200)

    application = web.Application()
    application.add_routes([web.get("/metrics", metrics), web.get("/healthz", health)])
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    return runner
