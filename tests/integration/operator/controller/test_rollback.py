"""A rollback of the operator: no run is touched, and no finished job is run again.

The operator of these tests is the older version. What a newer version would have written is written by the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support import api_server
from tests.support.api_server import JOBS, PODS, ApiServer
from tests.support.operator_process import Kubelets, job, running_operator_directly, wait_for

from finetune_trainer.protocol.outcome import Reason

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/finetunejobs.finetune-operator.io"
EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
EXTRA = {"newerField": "x", "restarts": {"newerCount": 2}}  # fields of a status that only the newer version has


async def change_crd(server: ApiServer, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the schema of FineTuneJobs; the API server uses it some moments later."""
    crd = await server.request("GET", CRD)
    [version] = crd["spec"]["versions"]
    change(version["schema"]["openAPIV3Schema"]["properties"])
    await server.request("PATCH", CRD, {"spec": {"versions": [version]}})


def add_newer_fields(properties: dict[str, Any]) -> None:
    """The schema of a newer version: more in the status, and a field of the spec with a default."""
    status = properties["status"]["properties"]
    status["newerField"] = {"type": "string"}
    status["restarts"]["properties"]["newerCount"] = {"type": "integer"}
    status["conditions"]["items"]["properties"]["newerDetail"] = {"type": "string"}
    properties["spec"]["properties"]["runPolicy"]["properties"]["newerPolicy"] = {"type": "string", "default": "On"}


def remove_newer_fields(properties: dict[str, Any]) -> None:
    status = properties["status"]["properties"]
    del status["newerField"]
    del status["restarts"]["properties"]["newerCount"]
    del status["conditions"]["items"]["properties"]["newerDetail"]
    del properties["spec"]["properties"]["runPolicy"]["properties"]["newerPolicy"]


async def write_as_newer_version(server: ApiServer, name: str) -> None:
    """Add to the status of a job what only the newer version knows."""
    for _ in range(60):
        # An API server that still uses the old schema has dropped the new fields, but kept the new condition.
        by_type = {condition["type"]: condition for condition in (await get(server, name))["status"]["conditions"]}
        by_type["Archived"] = {**by_type["PodsReady"], "type": "Archived", "reason": "ByNewerVersion"}
        status = {**EXTRA, "conditions": [condition | {"newerDetail": "y"} for condition in by_type.values()]}
        if "newerField" in (await server.request("PATCH", f"{JOBS}/{name}/status", {"status": status}))["status"]:
            return
        await asyncio.sleep(0.5)
    raise AssertionError("the API server does not use the schema of the newer version")


async def get(server: ApiServer, name: str) -> dict[str, Any]:
    return await server.request("GET", f"{JOBS}/{name}")


async def wait_for_status(server: ApiServer, name: str, is_reached: Callable[[dict[str, Any]], bool]) -> None:
    for _ in range(300):
        if is_reached((await get(server, name))["status"]):
            return
        await asyncio.sleep(0.2)
    raise AssertionError((await get(server, name))["status"])


@asynccontextmanager
async def playing_kubelets(server: ApiServer) -> AsyncIterator[Kubelets]:
    kubelets = Kubelets(server)
    task = asyncio.create_task(kubelets.run())
    try:
        yield kubelets
    finally:
        task.cancel()


@pytest.mark.parametrize("crd", ["rolled back", "still that of the newer version"])
async def test_no_run_is_touched_and_no_finished_job_is_run_again(tmp_path: Path, crd: str) -> None:
    is_rolled_back, log = crd == "rolled back", tmp_path / "operator.log"
    async with api_server.running(tmp_path) as server, playing_kubelets(server) as kubelets:
        async with running_operator_directly(server, tmp_path):
            for number in range(3):
                await server.request("POST", JOBS, job(number, suspend=number == 2))
            await wait_for(server, {"job-0": "Running", "job-1": "Running", "job-2": "Suspended"}, 120, log)
            for rank in (0, 1):
                await kubelets.end("job-0", rank, Reason.COMPLETE)
            await wait_for(server, {"job-0": "Succeeded", "job-1": "Running", "job-2": "Suspended"}, 120, log)
            finished = (await get(server, "job-0"))["status"]
        await change_crd(server, add_newer_fields)
        for name in ("job-0", "job-1", "job-2"):
            await write_as_newer_version(server, name)
        if is_rolled_back:
            await change_crd(server, remove_newer_fields)
            await wait_for_status(server, "job-1", lambda status: "newerField" not in status)
        async with running_operator_directly(server, tmp_path):
            if is_rolled_back:
                await server.request("PATCH", f"{JOBS}/job-2", {"spec": {"runPolicy": {"suspend": False}}})
                await wait_for(server, {"job-0": "Succeeded", "job-1": "Running", "job-2": "Running"}, 120, log)
            else:
                await wait_for_status(server, "job-1", lambda status: status.get("reason") == "InvalidSpec")
            for rank in (0, 1):
                await kubelets.end("job-1", rank, Reason.COMPLETE)
            job_2 = "Running" if is_rolled_back else "Suspended"
            await wait_for(server, {"job-0": "Succeeded", "job-1": "Succeeded", "job-2": job_2}, 120, log)
        status = (await get(server, "job-0"))["status"]
        unchanged = ("phase", "completionTime", "workers")
        assert {name: status[name] for name in unchanged} == {name: finished[name] for name in unchanged}
        status = (await get(server, "job-1"))["status"]
        assert (status["restarts"]["total"], status["restarts"].get("newerCount")) == (0, None if is_rolled_back else 2)
        assert "Archived" in [condition["type"] for condition in status["conditions"]]
    expected = {(f"job-{number}", rank): 1 for number in (0, 1, 2)[: 3 if is_rolled_back else 2] for rank in ("0", "1")}
    assert {key: len(uids) for key, uids in kubelets.created.items()} == expected, "no pod was created again"


async def test_status_that_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    """As after `helm rollback`: the CRD of a newer version has stored a phase that the operator does not know."""
    async with api_server.running(tmp_path) as server:
        await server.request("POST", JOBS, job(0))
        await change_crd(server, lambda schema: schema["status"]["properties"]["phase"]["enum"].append("Paused"))
        status = {"phase": "Paused", "completionTime": "2026-01-01T12:00:00Z", "restarts": {"total": 3}}
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(AssertionError):
                    await server.request("PATCH", f"{JOBS}/job-0/status", {"status": status})
                    break
                await asyncio.sleep(0.5)
        await change_crd(server, lambda schema: schema["status"]["properties"]["phase"]["enum"].remove("Paused"))
        await asyncio.sleep(1)
        async with running_operator_directly(server, tmp_path):
            for _ in range(300):
                if await server.list(EVENTS):
                    break
                await asyncio.sleep(0.2)
            await asyncio.sleep(1)
        [event] = await server.list(EVENTS)
        assert (event["reason"], event["type"]) == ("StatusUnreadable", "Warning")
        assert "status.phase: 'Paused' is not one of" in event["note"]
        left = (await server.request("GET", f"{JOBS}/job-0"))["status"]
        assert {name: left[name] for name in status} == status
        assert await server.list(PODS) == []
