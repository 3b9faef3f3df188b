"""A proxy in front of the API server that records the writes of one client, with their times."""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import aiohttp
import yaml
from aiohttp import web


class Write(NamedTuple):
    """A write that reached the proxy: time in monotonic seconds, method, path, and status of the response."""

    time: float
    method: str
    path: str
    status: int


@dataclass
class RecordingProxy:
    """Forwards plain HTTP to the API server of a kubeconfig, with its client certificate. Use as a context manager."""

    kubeconfig: Path
    writes: list[Write] = field(default_factory=list)
    port: int = 0

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def client_kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig with which a client uses this proxy."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
            "current-context": "proxy",
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def writes_to_jobs(self) -> list[Write]:
        """All writes except those of the Lease, which a standby sends too."""
        return [write for write in self.writes if "/leases" not in write.path]

    async def _start(self) -> None:
        self._server, context = _credentials(self.kubeconfig)
        timeout = aiohttp.ClientTimeout(total=None)
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        await self._session.close()
        await self._runner.cleanup()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        received = time.monotonic()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in ("host", "connection")}
        body = await request.read()
        url = self._server + request.raw_path
        async with self._session.request(request.method, url, data=body or None, headers=headers) as upstream:
            if request.method != "GET":
                self.writes.append(Write(received, request.method, request.path, upstream.status))
            response = web.StreamResponse(status=upstream.status)
            for name, value in upstream.headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    response.headers[name] = value
            await response.prepare(request)
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response


def _credentials(kubeconfig: Path) -> tuple[str, ssl.SSLContext]:
    config: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for key in ("client-certificate-data", "client-key-data"):
            file = Path(folder, key)
            file.write_bytes(base64.b64decode(user[key]))
            files.append(file)
        context.load_cert_chain(*files)
    return str(cluster["server"]), context
