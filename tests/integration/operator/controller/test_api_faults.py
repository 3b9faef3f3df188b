"""The operator behind a proxy that breaks its requests and watches, on a real API server."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from tests.support import api_proxy, api_server
from tests.support.api_proxy import FAULTS, WATCH_FAULTS, ApiProxy
from tests.support.api_server import JOBS, PODS, ApiServer
from tests.support.operator_process import JOB, Kubelets, job, running_operator, wait_for

from finetune_trainer.protocol.outcome import Reason

JOB_COUNT = 8
POLICIES = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"


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
        new_collector = {"ipBlock": {"cidr": "10.20.0.0/24"}}
        async with running_operator(proxy.url, folder, new_collector):
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
    policies = {body["metadata"]["name"]: body["spec"]["ingress"][1]["from"] for body in await server.list(POLICIES)}
    assert policies == {name: [new_collector] for name in names}, "running jobs get the settings of the second operator"
    for collection in (PODS, POLICIES, "/api/v1/namespaces/default/services", "/api/v1/namespaces/default/configmaps"):
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
