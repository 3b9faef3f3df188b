"""The operator behind a proxy that breaks its requests and watches, on a real API server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.support import api_proxy, api_server
from tests.support.api_proxy import FAULTS, WATCH_FAULTS, ApiProxy
from tests.support.api_server import JOBS, PODS, ApiServer
from tests.support.simulated_cluster import document

from finetune_trainer.protocol.outcome import EXIT_POLICIES, Outcome, Reason

JOB_COUNT = 8
RANK = "finetune-operator.io/node-rank"
JOB = "finetune-operator.io/job"


@asynccontextmanager
async def running_operator(url: str, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The operator as a process of its own, which knows the API server only at `url`."""
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

    async def _patch(self, pod: dict[str, Any], status: dict[str, Any]) -> None:
        with contextlib.suppress(AssertionError):  # the operator has deleted the pod
            await self._server.request("PATCH", f"{PODS}/{pod['metadata']['name']}/status", {"status": status})


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


def job(number: int, **run_policy: Any) -> dict[str, Any]:
    body = document(**run_policy)
    body["metadata"] = {"name": f"job-{number}", "namespace": "default"}
    return body


async def live(server: ApiServer, proxy: ApiProxy, folder: Path) -> None:
    """Run jobs from creation to completion: some crash, one is suspended, one deleted; the operator is killed once."""
    names = [f"job-{number}" for number in range(JOB_COUNT)]
    kubelets, log = Kubelets(server), folder / "operator.log"
    task = asyncio.create_task(kubelets.run())
    try:
        async with running_operator(proxy.url, folder) as operator:
            for number in range(JOB_COUNT):
                await server.request("POST", JOBS, job(number))
            await wait_for(server, dict.fromkeys(names, "Running"), 120, log)
            await kubelets.end("job-0", 1, Reason.CRASHED)
            await kubelets.end("job-1", 0, Reason.CRASHED)
            await server.request("PATCH", f"{JOBS}/job-2", {"spec": {"runPolicy": {"suspend": True}}})
            await asyncio.sleep(0.5)
            operator.kill()
        async with running_operator(proxy.url, folder):
            await wait_for(server, dict.fromkeys(names, "Running") | {"job-2": "Suspended"}, 120, log)
            await server.request("PATCH", f"{JOBS}/job-2", {"spec": {"runPolicy": {"suspend": False}}})
            await wait_for(server, dict.fromkeys(names, "Running"), 120, log)
            for name in names:
                await kubelets.end(name, 0, Reason.COMPLETE)
                await kubelets.end(name, 1, Reason.COMPLETE)
            statuses = await wait_for(server, dict.fromkeys(names, "Succeeded"), 120, log)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    failures = {name: status["restarts"].get("failures", 0) for name, status in statuses.items()}
    assert failures == dict.fromkeys(names, 0) | {"job-0": 1, "job-1": 1}
    assert all(status["restarts"].get("disruptions", 0) == 0 for status in statuses.values())
    pods = {key: len(uids) for key, uids in kubelets.created.items()}
    expected = {(name, rank): 1 for name in names for rank in ("0", "1")}
    expected |= {("job-0", "1"): 2, ("job-1", "0"): 2, ("job-2", "0"): 2, ("job-2", "1"): 2}
    assert pods == expected, "no pod is created twice"
    uids = {body["metadata"]["uid"] for body in await server.list(JOBS)}
    for collection in (PODS, "/api/v1/namespaces/default/services", "/api/v1/namespaces/default/configmaps"):
        for body in await server.list(collection):
            if body["metadata"].get("labels", {}).get(JOB):
                assert {owner["uid"] for owner in body["metadata"]["ownerReferences"]} <= uids


@pytest.mark.parametrize("rate", [0.0, 0.25], ids=["no faults", "every fourth request"])
async def test_jobs_converge_without_duplicates_and_orphans(tmp_path: Path, rate: float) -> None:
    async with api_server.running(tmp_path) as server:
        connector = aiohttp.TCPConnector(ssl=api_server.unverified())
        async with api_proxy.serving(server.url, connector, api_server.authorization(), seed=7, rate=rate) as proxy:
            await live(server, proxy, tmp_path)
    if rate:
        assert {*FAULTS, *WATCH_FAULTS} <= set(proxy.counts)
    else:
        assert proxy.counts == Counter()


async def test_status_that_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    """As after `helm rollback`: the CRD of a newer version has stored a phase that the operator does not know."""
    async with api_server.running(tmp_path) as server:
        crd_path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/finetunejobs.finetune-operator.io"
        crd = await server.request("GET", crd_path)
        await server.request("POST", JOBS, job(0))
        version = crd["spec"]["versions"][0]
        phase = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["phase"]
        known = list(phase["enum"])
        phase["enum"] = [*known, "Paused"]
        await server.request("PATCH", crd_path, {"spec": {"versions": [version]}})
        status = {"phase": "Paused", "completionTime": "2026-01-01T12:00:00Z", "restarts": {"total": 3}}
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(AssertionError):
                    await server.request("PATCH", f"{JOBS}/job-0/status", {"status": status})
                    break
                await asyncio.sleep(0.5)
        phase["enum"] = known
        await server.request("PATCH", crd_path, {"spec": {"versions": [version]}})
        await asyncio.sleep(1)
        async with running_operator_directly(server, tmp_path):
            for _ in range(300):
                if await server.list("/apis/events.k8s.io/v1/namespaces/default/events"):
                    break
                await asyncio.sleep(0.2)
            await asyncio.sleep(1)
        [event] = await server.list("/apis/events.k8s.io/v1/namespaces/default/events")
        assert (event["reason"], event["type"]) == ("StatusUnreadable", "Warning")
        assert "status.phase: 'Paused' is not one of" in event["note"]
        left = (await server.request("GET", f"{JOBS}/job-0"))["status"]
        assert {name: left[name] for name in status} == status
        assert await server.list(PODS) == []


@asynccontextmanager
async def running_operator_directly(server: ApiServer, folder: Path) -> AsyncIterator[None]:
    """The operator behind a proxy without faults, which adds the credentials."""
    connector = aiohttp.TCPConnector(ssl=api_server.unverified())
    async with (
        api_proxy.serving(server.url, connector, api_server.authorization(), seed=1, rate=0) as proxy,
        running_operator(proxy.url, folder),
    ):
        yield
