"""The manager: comparison of the cache with the cluster, and probes."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.support.fake_kubernetes import KEY, FakeKubernetesClient, job_body, pod_body
from tests.support.waiting import reached

from finetune_operator.client.types import JobKey
from finetune_operator.controller.manager import Manager
from finetune_operator.settings import Settings


@pytest.mark.parametrize(
    ("namespaces", "exists", "is_removed"),
    [
        pytest.param("", True, False, id="all namespaces, job exists"),
        pytest.param("", False, True, id="all namespaces, job deleted"),
        pytest.param("other,team", False, True, id="watched namespace, job deleted"),
        pytest.param("other", False, False, id="job in a namespace that is not watched"),
    ],
)
async def test_resync_removes_deleted_jobs_and_pods(namespaces: str, exists: bool, is_removed: bool) -> None:
    manager = Manager(Settings(namespaces=namespaces))
    manager.cache.put_job(job_body(10))
    manager.cache.put_pod(pod_body(10))
    client: Any = FakeKubernetesClient()
    if exists:
        client.objects = {("FineTuneJob", "j"): job_body(10), ("Pod", "j-0"): pod_body(10)}
    assert await manager.resync(client) == ({KEY} if is_removed else set())
    assert (KEY in manager.cache.jobs) == (not is_removed)
    assert bool(manager.cache.pods(KEY)) == (not is_removed)


async def test_resync_follows_the_restart_of_a_watch() -> None:
    manager = Manager(Settings())
    manager.cache.put_pod(pod_body(10))
    client: Any = FakeKubernetesClient()
    task = asyncio.create_task(manager._resync_periodically(client))
    await asyncio.sleep(0.01)
    assert manager.cache.pods(KEY)
    manager.resync_needed.set()
    await reached(lambda: not manager.cache.pods(KEY))
    assert len(manager.queue) == 1
    task.cancel()


async def test_standby_fills_its_cache_but_queues_nothing() -> None:
    standby = Manager(Settings(lease="finetune-system/finetune-operator"))
    standby.enqueue(KEY)
    assert len(standby.queue) == 0
    single = Manager(Settings())
    single.enqueue(KEY)
    assert len(single.queue) == 1


async def test_new_leader_reconciles_all_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = Manager(Settings(lease="finetune-system/finetune-operator"))
    manager.cache.put_job(job_body(10))
    manager.enqueue(KEY)
    started: list[str] = []

    def record_task(name: str, coroutine: Any) -> None:
        started.append(name)
        coroutine.close()

    monkeypatch.setattr(manager, "_start_task", record_task)
    client: Any = FakeKubernetesClient()
    manager._lead(client)
    assert started == ["reconcile", "events", "progress"]
    assert len(manager.queue) == 1


@pytest.mark.parametrize(
    ("has_listed", "wait", "reason"),
    [
        pytest.param(False, 0, "the jobs and pods of the cluster are not all in the cache yet", id="first list"),
        pytest.param(True, 0, None, id="idle"),
        pytest.param(True, 119, None, id="busy"),
        pytest.param(True, 121, "a job has waited 121 s for its reconcile", id="stalled"),
    ],
)
def test_is_ready_when_the_queue_moves(has_listed: bool, wait: float, reason: str | None) -> None:
    manager = Manager(Settings(stalled_after=120))
    manager.has_listed = has_listed
    started = time.monotonic()
    manager.queue._clock = lambda: started
    manager.queue.add(KEY)
    manager.queue._clock = lambda: started + wait
    assert manager.unready_reason() == reason


async def test_is_complete_when_the_cache_has_all_objects() -> None:
    manager = Manager(Settings())
    client: Any = FakeKubernetesClient()
    client.objects = {("FineTuneJob", "j"): job_body(10), ("Pod", "j-0"): pod_body(10)}
    assert not await manager.has_all_objects(client)
    manager.cache.put_job(job_body(10))
    assert not await manager.has_all_objects(client)
    manager.cache.put_pod(pod_body(10))
    assert await manager.has_all_objects(client)


async def test_operator_stays_alive_while_the_api_server_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """600 jobs wait for an API server that accepts connections and never responds."""
    connections: list[asyncio.StreamWriter] = []

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    api = await asyncio.start_server(hang, "127.0.0.1", 0)
    cluster = {"server": f"http://127.0.0.1:{api.sockets[0].getsockname()[1]}"}
    kubeconfig = {
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    manager = Manager(Settings(http_address="127.0.0.1", http_port=0, stalled_after=1))
    await manager.start()
    assert manager._server is not None
    url = f"http://127.0.0.1:{manager._server.addresses[0][1]}"
    job = manager.cache.put_job(job_body(1))
    manager.has_listed = True
    for number in range(600):
        key = JobKey("team", f"j-{number}")
        manager.cache.jobs[key] = dataclasses.replace(job, key=key, uid=f"uid-{number}")
        manager.queue.add(key)
    live, ready = [], []
    try:
        async with aiohttp.ClientSession() as session:
            for _ in range(20):
                await asyncio.sleep(0.1)
                async with session.get(f"{url}/healthz") as response:
                    live.append(response.status)
                async with session.get(f"{url}/readyz") as response:
                    ready.append(response.status)
    finally:
        await manager.stop()
        api.close()
    assert len(connections) >= 64
    assert set(live) == {200}
    assert 503 in ready
