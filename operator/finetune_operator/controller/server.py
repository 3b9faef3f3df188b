"""HTTP server of the operator: /metrics for Prometheus and /healthz for the kubelet."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder


async def serve(
    address: str, port: int, registry: CollectorRegistry, oldest_wait: Callable[[], float], stalled_after: float
) -> web.AppRunner:
    """Start the server; `cleanup()` of the result stops it.

    /healthz responds with 503 if a job has waited longer than `stalled_after` seconds for its reconcile. A blocked event loop
    does not respond at all.
    """

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def health(_request: web.Request) -> web.Response:
        seconds = oldest_wait()
        if seconds > stalled_after:
            return web.Response(text=f"a job has waited {seconds:.0f} s for its reconcile\n", status=503)
        return web.Response(text="ok\n")

    application = web.Application()
    application.add_routes([web.get("/metrics", metrics), web.get("/healthz", health)])
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    return runner
