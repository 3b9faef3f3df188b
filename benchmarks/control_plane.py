"""What benchmarks of the control plane need: fake nodes, a thin client, a temporary namespace and the operator."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config
from paired import free_port
from prometheus_client.parser import text_string_to_metric_families

from finetune_operator.api import GROUP, PLURAL

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/support"))

from devcluster import gobuild, standalone  # noqa: E402
from devcluster.definitions import wait_until_established  # noqa: E402
from devcluster.standalone import Standalone  # noqa: E402

TIMEOUT_SECONDS = 300.0

Body = dict[str, Any]


class Api:
    """Requests with plain dictionaries: the models of kubernetes.aio spend more time on validation than on requests."""

    def __init__(self, api: client.ApiClient, concurrency: int) -> None:
        self._client = api
        self._limit = asyncio.Semaphore(concurrency)

    async def create(self, path: str, body: Body) -> None:
        """Send a POST; exits unless the answer is 201."""
        async with self._limit:
            status, text = await self._request("POST", path, body)
        if status != 201:
            raise SystemExit(f"the API server answered {status} to a POST of {path}: {text[:500]!r}")

    async def get(self, path: str) -> Body | None:
        """Send a GET; returns None if the object does not exist."""
        status, text = await self._request("GET", path)
        if status not in (200, 404):
            raise SystemExit(f"the API server answered {status} to a GET of {path}: {text[:500]!r}")
        return json.loads(text) if status == 200 else None

    async def delete(self, path: str) -> None:
        """Send a DELETE and ignore the answer."""
        await self._request("DELETE", path)

    async def watch(self, path: str, version: str, **selectors: str) -> AsyncIterator[Body]:
        """Yield the objects of a watch's events after resource version `version`.

        The API server ends the watch of a client that falls behind; the watch then resumes after the last object received.
        """
        while True:
            query = urlencode({"watch": "true", "resourceVersion": version} | selectors)
            url = f"{self._client.configuration.host}{path}?{query}"
            answer = await self._client.rest_client.request("GET", url, _request_timeout=2 * TIMEOUT_SECONDS)
            rest = b""
            async for chunk in answer.response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for event in map(json.loads, lines):
                    if event["type"] == "ERROR":
                        raise SystemExit(f"the watch of {path} failed: {event['object'].get('message')}")
                    version = event["object"]["metadata"]["resourceVersion"]
                    yield event["object"]

    async def _request(self, verb: str, path: str, body: Body | None = None) -> tuple[int, bytes]:
        answer = await self._client.rest_client.request(verb, self._client.configuration.host + path, body=body)
        return answer.status, await answer.read()


@contextlib.asynccontextmanager
async def connected(kubeconfig: Path, concurrency: int) -> AsyncIterator[Api]:
    """Open a client with at most `concurrency` requests at a time, not counting watches."""
    configuration = client.Configuration()
    await config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    configuration.connection_pool_maxsize = concurrency + 4
    async with client.ApiClient(configuration) as api:
        yield Api(api, concurrency)


@contextlib.asynccontextmanager
async def namespace(api: Api, name: str) -> AsyncIterator[None]:
    """Create a namespace; delete it at the end and wait until all its objects are gone."""
    path = f"/api/v1/namespaces/{name}"
    await api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        # The API server rejects pods until their ServiceAccount exists.
        await wait_until(lambda: _exists(api, f"{path}/serviceaccounts/default"))
        yield
    finally:
        await api.delete(path)
        await wait_until(lambda: _is_gone(api, path))


async def wait_until(condition: Callable[[], Awaitable[bool]], pause: float = 0.5) -> None:
    """Wait until the condition holds; exits after a timeout."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not await condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"a condition of the benchmark did not hold within {TIMEOUT_SECONDS:.0f} s")
        await asyncio.sleep(pause)


class Operator(NamedTuple):
    """A running operator."""

    pid: int
    port: int

    async def requests(self) -> Counter[str]:
        """The number of requests that it has sent to the API server, by verb and resource, such as "POST pods"."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
            text = await answer.text()
        counts: Counter[str] = Counter()
        for family in text_string_to_metric_families(text):
            if family.name == "finetune_operator_api_requests":
                for sample in family.samples:
                    if sample.name.endswith("_total"):
                        counts[f"{sample.labels['verb']} {sample.labels['resource']}"] += int(sample.value)
        return counts


@contextlib.asynccontextmanager
async def operator(kubeconfig: Path, namespace: str) -> AsyncIterator[Operator]:
    """Run the operator with default settings for one namespace in a separate process."""
    port = free_port()
    with tempfile.TemporaryFile("w+") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "finetune_operator", f"--namespaces={namespace}", f"--http-port={port}",
            env=os.environ | {"KUBECONFIG": str(kubeconfig)}, stdout=log, stderr=log,
        )  # fmt: skip

        async def is_listening() -> bool:
            if process.returncode is not None:
                log.seek(0)
                raise SystemExit(f"the operator exited:\n{log.read()[-4000:]}")
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return True
            return False

        try:
            await wait_until(is_listening, pause=0.1)
            yield Operator(process.pid, port)
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


def peak_mib(pid: int) -> float:
    """Read the peak resident memory of a process, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [kib] = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(kib) / 1024


@contextlib.contextmanager
def control_plane(nodes: int) -> Iterator[Standalone]:
    """Run a control plane of its own, with the custom resource of this project and fake nodes on which pods run at once."""
    gobuild.build()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, standalone.control_plane(Path(directory)) as plane:
        plane.kubectl("apply", "--server-side", f"--filename={ROOT / 'manifests/crds'}")
        wait_until_established(plane.kubectl, f"{PLURAL}.{GROUP}")
        plane.add_nodes({f"fake-{number}": "64" for number in range(nodes)})
        plane.kubectl("wait", "node", "--all", "--for=condition=Ready", "--timeout=60s")
        yield plane


async def _exists(api: Api, path: str) -> bool:
    return await api.get(path) is not None


async def _is_gone(api: Api, path: str) -> bool:
    return await api.get(path) is None
