"""The operator as a process of its own before a real API server, and kubelets that a test plays."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from tests.support import api_proxy, api_server
from tests.support.api_server import JOBS, PODS, WORKLOADS, ApiServer
from tests.support.simulated_cluster import document

from finetune_trainer.protocol.outcome import EXIT_POLICIES, Outcome, Reason

RANK = "finetune-operator.io/node-rank"
JOB = "finetune-operator.io/job"
PROMETHEUS = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}


def job(number: int, sections: dict[str, Any] | None = None, **run_policy: Any) -> dict[str, Any]:
    """The document of a job of two nodes; `sections` are those of its spec besides the run policy."""
    body = document(**run_policy)
    body["metadata"] = {"name": f"job-{number}", "namespace": "default"}
    body["spec"] |= sections or {}
    return body


@asynccontextmanager
async def running_operator(
    url: str, folder: Path, collector: dict[str, Any] = PROMETHEUS
) -> AsyncIterator[asyncio.subprocess.Process]:  # fmt: skip
    """The operator as a process of its own, which knows the API server only at `url`; `collector` may read metrics of jobs."""
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}],
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {}}],
    }
    (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
    with (folder / "operator.log").open("a") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "finetune_operator", "--namespaces=default", "--http-address=127.0.0.1", "--http-port=0",
            f"--network-policy-peers={json.dumps([collector])}",
            stdout=log, stderr=log, env=os.environ | {"KUBECONFIG": str(folder / "kubeconfig"), "HOME": str(folder)},
        )  # fmt: skip
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class Kubelets:
    """Takes the role of the kubelets, without the proxy: pods become ready, and end as a test says.

    `created` has the UIDs of all pods that ever existed, by job and node.
    """

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self.created: dict[tuple[str, str], set[str]] = {}

    async def run(self) -> None:
        """Make new pods ready until cancelled."""
        while True:
            for pod in await self._server.list(PODS):
                labels = pod["metadata"]["labels"]
                self.created.setdefault((labels[JOB], labels[RANK]), set()).add(pod["metadata"]["uid"])
                if pod["status"]["phase"] == "Pending" and "deletionTimestamp" not in pod["metadata"]:
                    await self._patch(pod, {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})
            await asyncio.sleep(0.1)

    async def end(self, job: str, rank: int, reason: Reason) -> None:
        """End the running pod of a node with a termination message."""
        message = Outcome(reason=reason, message="in a test").model_dump_json(by_alias=True, exclude_none=True)
        terminated = {"exitCode": EXIT_POLICIES[reason].exit_code, "reason": "Error", "message": message}
        container = {"name": "trainer", "ready": False, "restartCount": 0, "image": "", "imageID": ""}
        phase = "Succeeded" if reason is Reason.COMPLETE else "Failed"
        for pod in await self._server.list(PODS):
            labels = pod["metadata"]["labels"]
            if (labels[JOB], labels[RANK], pod["status"]["phase"]) == (job, str(rank), "Running"):
                state = {"terminated": terminated}
                await self._patch(pod, {"phase": phase, "containerStatuses": [container | {"state": state}]})

    async def wait_for_pods(self, job: str, count: int, seconds: float) -> None:
        """Wait until this many pods were created for each of the two nodes of a job."""
        async with asyncio.timeout(seconds):
            while True:
                if all(len(self.created.get((job, rank), ())) >= count for rank in ("0", "1")):
                    return
                await asyncio.sleep(0.1)

    async def _patch(self, pod: dict[str, Any], status: dict[str, Any]) -> None:
        with contextlib.suppress(AssertionError):  # the operator has deleted the pod
            await self._server.request("PATCH", f"{PODS}/{pod['metadata']['name']}/status", {"status": status})


class Kueue:
    """Takes the role of Kueue, without the proxy: it admits every Workload, and evicts one as a test says."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    async def run(self) -> None:
        """Admit Workloads without quota until cancelled."""
        while True:
            for workload in await self._server.list(WORKLOADS):
                conditions = _conditions(workload)
                if "Finished" not in conditions and conditions.get("QuotaReserved", {}).get("status") != "True":
                    await self._set_conditions(workload, {"QuotaReserved": "True", "Admitted": "True", "Evicted": "False"})
            await asyncio.sleep(0.1)

    async def evict(self, job: str) -> None:
        """Ask a job to give its quota back."""
        is_evicted = False
        while not is_evicted:
            for workload in await self._server.list(WORKLOADS):
                if workload["metadata"]["labels"][JOB] == job:
                    is_evicted = await self._set_conditions(workload, {"Evicted": "True"})

    async def _set_conditions(self, workload: dict[str, Any], statuses: dict[str, str]) -> bool:
        """Write conditions and an admission; False if the operator has written the Workload meanwhile."""
        conditions = _conditions(workload)
        for condition_type, status in statuses.items():
            if condition_type in conditions or status == "True":
                conditions[condition_type] = {
                    "type": condition_type, "status": status, "reason": "Preempted", "message": "in a test",
                    "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                }  # fmt: skip
        admission = {"clusterQueue": "gpus", "podSetAssignments": [{"name": "main", "count": 2}]}
        patch = {
            "metadata": {"resourceVersion": workload["metadata"]["resourceVersion"]},
            "status": {"conditions": list(conditions.values()), "admission": admission},
        }
        try:
            await self._server.request("PATCH", f"{WORKLOADS}/{workload['metadata']['name']}/status", patch)
        except AssertionError:
            return False
        return True


def _conditions(workload: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["type"]: item for item in workload.get("status", {}).get("conditions", ())}


async def wait_for(server: ApiServer, phases: dict[str, str], seconds: float, log: Path) -> dict[str, dict[str, Any]]:
    """Wait until all jobs are in these phases, and return their statuses."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                statuses = {job["metadata"]["name"]: job.get("status", {}) for job in await server.list(JOBS)}
                if {name: status.get("phase") for name, status in statuses.items()} == phases:
                    return statuses
                await asyncio.sleep(0.2)
    lines = await asyncio.to_thread(log.read_text)
    raise AssertionError(f"{ {name: status.get('phase') for name, status in statuses.items()} }\n{lines[-5000:]}")


@asynccontextmanager
async def running_operator_directly(server: ApiServer, folder: Path) -> AsyncIterator[None]:
    """The operator behind a proxy without faults, which adds the credentials."""
    connector = aiohttp.TCPConnector(ssl=api_server.unverified())
    async with (
        api_proxy.serving(server.url, connector, api_server.authorization(), seed=1, rate=0) as proxy,
        running_operator(proxy.url, folder),
    ):
        yield
