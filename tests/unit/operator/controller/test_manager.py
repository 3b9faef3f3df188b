"""The manager: comparison of the cache with the cluster."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.fake_kubernetes import KEY, FakeKubernetesClient, job_body, pod_body

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
    assert started == ["reconcile", "progress"]
    assert len(manager.queue) == 1
