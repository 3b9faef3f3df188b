"""A real etcd and kube-apiserver for one test, without controllers, scheduler and nodes.

Nothing deletes the objects of a deleted owner, and a pod changes only when a test writes its status.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.support.devcluster import components
from tests.support.devcluster.gobuild import binary

ROOT = Path(__file__).parents[2]
CRD = ROOT / "manifests/crds/finetunejobs.finetune-operator.io.yaml"
TOKEN = "secret"
START_SECONDS = 300.0
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
JOBS = "/apis/finetune-operator.io/v1alpha1/namespaces/default/finetunejobs"
PODS = "/api/v1/namespaces/default/pods"
WORKLOADS = "/apis/kueue.x-k8s.io/v1beta2/namespaces/default/workloads"
Body = dict[str, Any]


class ApiServer:
    """Requests to the API server as an administrator; `url` is its address."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self._session = url, session

    async def request(self, method: str, path: str, body: Body | None = None) -> Body:
        """Send a request and return the object in the response. Raises AssertionError for an error response."""
        headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
        async with self._session.request(method, self.url + path, json=body, headers=headers) as response:
            content: Body = await response.json()
            assert response.status < 400, f"{method} {path}: {content}"
            return content

    async def list(self, path: str) -> list[Body]:
        """The objects of a collection."""
        items: list[Body] = (await self.request("GET", path))["items"]
        return items

    async def define(self, definition: Body, path: str) -> None:
        """Create a custom resource definition, and wait until the collection at `path` can be listed."""
        await self.request("POST", CRDS, definition)
        async with asyncio.timeout(START_SECONDS):
            while True:
                async with self._session.get(self.url + path) as response:
                    if response.status == 200:
                        return
                await asyncio.sleep(0.2)

    async def is_ready(self) -> bool:
        """Whether the API server accepts requests for FineTuneJobs."""
        try:
            async with self._session.get(f"{self.url}/readyz") as response:
                if response.status != 200:
                    return False
            async with self._session.get(self.url + JOBS) as response:
                if response.status == 404:
                    await self._session.post(
                        f"{self.url}/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
                        json=yaml.safe_load(CRD.read_text()),
                    )
                return response.status == 200
        except aiohttp.ClientError:
            return False


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[ApiServer]:
    """Start etcd and the API server with the CRD; their data and logs are in `folder`."""
    etcd, peers, port = (_free_port() for _ in range(3))
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    (folder / "service-accounts.key").write_bytes(pem)
    (folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
    commands = {
        "etcd": components.etcd(folder / "etcd", f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peers}"),
        "kube-apiserver": [
            binary("kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=AlwaysAllow",
            "--disable-admission-plugins=ServiceAccount",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder / 'service-accounts.key'}",
            f"--service-account-signing-key-file={folder / 'service-accounts.key'}",
            f"--cert-dir={folder}",
            *components.POD_GROUPS,
        ],
    }
    processes = []
    try:
        for name, command in commands.items():
            with (folder / f"{name}.log").open("w") as log:
                processes.append(await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=unverified()), headers=authorization()) as session:
            server = ApiServer(f"https://127.0.0.1:{port}", session)
            async with asyncio.timeout(START_SECONDS):
                while not await server.is_ready():
                    ended = [process for process in processes if process.returncode is not None]
                    assert not ended, (folder / "kube-apiserver.log").read_text()[-2000:]
                    await asyncio.sleep(0.2)
            yield server
    finally:
        for process in reversed(processes):
            process.kill()
            await process.wait()


def unverified() -> ssl.SSLContext:
    """Accepts the certificate that the API server has made for itself."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def authorization() -> dict[str, str]:
    """The header of requests to the API server."""
    return {"Authorization": f"Bearer {TOKEN}"}


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
