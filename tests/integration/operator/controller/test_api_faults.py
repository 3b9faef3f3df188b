"""The operator behind a proxy that breaks its requests and watches, on a real API server."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.support import api_proxy, api_server
from tests.support.api_proxy import FAULTS, WATCH_FAULTS, ApiProxy
from tests.support.api_server import JOBS, PODS, WORKLOADS, ApiServer
from tests.support.devcluster.kueue import workload_definition
from tests.support.operator_process import JOB, Kubelets, Kueue, job, running_operator, wait_for

from finetune_trainer.protocol.outcome import Reason

JOB_COUNT = 8
QUEUED: dict[str, Any] = {"scheduling": {"queueName": "team-queue"}}
GANG: dict[str, Any] = {"scheduling": {"gang": "Native"}}
SECTIONS = {3: QUEUED, 4: QUEUED, 5: GANG, 6: GANG, 7: QUEUED}
DELETED = ("job-6", "job-7")
CORE = "/api/v1/namespaces/default"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
POD_GROUPS = "/apis/scheduling.k8s.io/v1beta1/namespaces/default/podgroups"
OWNED = (PODS, POLICIES, POD_GROUPS, WORKLOADS)


async def live(server: ApiServer, proxy: ApiProxy, folder: Path) -> None:
    """Run jobs from creation to completion: some crash, some are suspended, evicted or deleted; the operator is killed once."""
    names = [f"job-{number}" for number in range(JOB_COUNT)]
    remaining = [name for name in names if name not in DELETED]
    kubelets, kueue, log = Kubelets(server), Kueue(server), folder / "operator.log"
    tasks = [asyncio.create_task(role.run()) for role in (kubelets, kueue)]
    try:
        async with running_operator(proxy.url, folder) as operator:
            for number in range(JOB_COUNT):
                await server.request("POST", JOBS, job(number, SECTIONS.get(number)))
            await wait_for(server, dict.fromkeys(names, "Running"), 120, log)
            await kubelets.end("job-0", 1, Reason.CRASHED)
            await kubelets.end("job-1", 0, Reason.CRASHED)
            await server.request("PATCH", f"{JOBS}/job-2", {"spec": {"runPolicy": {"suspend": True}}})
            await kueue.evict("job-3")
            await server.request("DELETE", f"{JOBS}/job-6")
            await asyncio.sleep(0.5)
            operator.kill()
        await server.request("DELETE", f"{JOBS}/job-7")
        new_collector = {"ipBlock": {"cidr": "10.20.0.0/24"}}
        async with running_operator(proxy.url, folder, new_collector):
            await kubelets.wait_for_pods("job-3", 2, 120)
            await wait_for(server, dict.fromkeys(remaining, "Running") | {"job-2": "Suspended"}, 120, log)
            assert await owned_by(server, *DELETED), "what they owned is left to the garbage collector"
            await collect_garbage(server)
            await server.request("PATCH", f"{JOBS}/job-2", {"spec": {"runPolicy": {"suspend": False}}})
            await wait_for(server, dict.fromkeys(remaining, "Running"), 120, log)
            for name in remaining:
                await kubelets.end(name, 0, Reason.COMPLETE)
                await kubelets.end(name, 1, Reason.COMPLETE)
            statuses = await wait_for(server, dict.fromkeys(remaining, "Succeeded"), 120, log)
            await wait_for_finished_workloads(server, {"job-3", "job-4"})
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    failures = {name: status["restarts"].get("failures", 0) for name, status in statuses.items()}
    assert failures == dict.fromkeys(remaining, 0) | {"job-0": 1, "job-1": 1}
    assert all(status["restarts"].get("disruptions", 0) == 0 for status in statuses.values())
    pods = {key: len(uids) for key, uids in kubelets.created.items()}
    expected = {(name, rank): 1 for name in names for rank in ("0", "1")}
    expected |= {("job-0", "1"): 2, ("job-1", "0"): 2}
    expected |= {(name, rank): 2 for name in ("job-2", "job-3") for rank in ("0", "1")}
    assert pods == expected, "no pod is created twice"
    policies = {body["metadata"]["name"]: body["spec"]["ingress"][1]["from"] for body in await server.list(POLICIES)}
    assert policies == {name: [new_collector] for name in remaining}, "running jobs get the settings of the second operator"
    assert [body["metadata"]["name"] for body in await server.list(POD_GROUPS)] == ["job-5"]
    assert len(await server.list(WORKLOADS)) == 2
    assert await owned_by(server, *DELETED) == [], "nothing of a deleted job is created again"
    uids = {body["metadata"]["uid"] for body in await server.list(JOBS)}
    for collection in OWNED:
        for body in await server.list(collection):
            if body["metadata"].get("labels", {}).get(JOB):
                assert {owner["uid"] for owner in body["metadata"]["ownerReferences"]} <= uids


async def owned_by(server: ApiServer, *jobs: str) -> list[str]:
    """The paths of all objects that belong to jobs with these names."""
    found = []
    for collection in OWNED:
        for body in await server.list(collection):
            if body["metadata"].get("labels", {}).get(JOB) in jobs:
                found.append(f"{collection}/{body['metadata']['name']}")
    return found


async def collect_garbage(server: ApiServer) -> None:
    """Delete the objects of deleted jobs."""
    for path in await owned_by(server, *DELETED):
        await server.request("PATCH", path, {"metadata": {"finalizers": None}})  # that of a PodGroup whose pods are gone
        await server.request("DELETE", path, {"gracePeriodSeconds": 0})


async def wait_for_finished_workloads(server: ApiServer, jobs: set[str]) -> None:
    """Wait until the Workloads of these jobs are finished."""
    async with asyncio.timeout(60):
        finished: set[str] = set()
        while not jobs <= finished:
            for body in await server.list(WORKLOADS):
                conditions = {item["type"]: item["status"] for item in body["status"]["conditions"]}
                if conditions.get("Finished") == "True":
                    finished.add(body["metadata"]["labels"][JOB])
            await asyncio.sleep(0.2)


@pytest.mark.parametrize(
    "rate",
    [pytest.param(0.0, id="no faults", marks=pytest.mark.slow), pytest.param(0.25, id="every fourth request")],
)
async def test_jobs_converge_without_duplicates_and_orphans(tmp_path: Path, rate: float) -> None:
    async with api_server.running(tmp_path) as server:
        await server.define(await asyncio.to_thread(workload_definition), WORKLOADS)
        connector = aiohttp.TCPConnector(ssl=api_server.unverified())
        async with api_proxy.serving(server.url, connector, api_server.authorization(), seed=7, rate=rate) as proxy:
            await live(server, proxy, tmp_path)
    if rate:
        assert {*FAULTS, *WATCH_FAULTS} <= set(proxy.counts)
    else:
        assert proxy.counts == Counter()
