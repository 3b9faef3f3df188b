"""Name conflicts, quotas and rejections when objects are created."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.support.fake_kubernetes import ReconcilerHarness, start_job
from tests.support.simulated_cluster import job

from finetune_operator import names
from finetune_operator.client.errors import ApiError
from finetune_operator.controller.action_executor import REPORT_ERROR_SECONDS

CRASHED = {"phase": "Failed", "containerStatuses": [{"name": "trainer", "state": {"terminated": {"exitCode": 1}}}]}


async def reconcile_after(harness: ReconcilerHarness, seconds: float) -> float | None:
    """Advance the clock and reconcile."""
    harness.now += timedelta(seconds=seconds)
    return await harness.reconcile()


@pytest.mark.parametrize("kind", ["Service", "ConfigMap", "Pod"])
async def test_reports_name_conflict(kind: str) -> None:
    harness = ReconcilerHarness()
    name = {"Pod": "j-0", "Service": "j", "ConfigMap": names.config_map_name(job())}[kind]
    harness.client.objects[kind, name] = {"kind": kind, "metadata": {"name": name, "uid": "x", "labels": {}}}
    harness.client.put_job()
    harness.cache.put_job(harness.client.objects["FineTuneJob", "j"])
    assert await harness.reconcile() == REPORT_ERROR_SECONDS
    retry_after = await harness.reconcile()
    condition = harness.condition("PodsReady")
    assert condition["reason"] == "NameConflict"
    assert f"{kind} {name} exists but does not belong to this job" in condition["message"]
    if kind != "Pod":
        assert harness.client.pod_names() == []
    del harness.client.objects[kind, name]
    assert retry_after is not None
    await reconcile_after(harness, retry_after)
    harness.sync_cache()
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1"]


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        (400, "spec is invalid", "CreateRejected"),
        (403, 'pods "j-0" is forbidden: exceeded quota: team, requested: pods=1', "QuotaExceeded"),
        (403, 'admission webhook "policy" denied the request', "CreateRejected"),
        (422, "Pod is invalid", "CreateRejected"),
    ],
)
async def test_rejected_pod_is_reported_and_retried_with_growing_pauses(status: int, message: str, reason: str) -> None:
    harness = ReconcilerHarness(progress_write_interval=1e-9, progress_writes_per_second=1e9)
    harness.client.put_job()
    harness.client.create_errors["Pod"] = ApiError(status, "Forbidden", message)
    harness.sync_cache()
    assert await harness.reconcile() == REPORT_ERROR_SECONDS
    pauses = []
    for _ in range(9):
        pause = await harness.reconcile()
        assert message in harness.condition("PodsReady")["message"]
        assert harness.status()["reason"] == reason
        assert await harness.reconcile() == pause, "no request before the pause is over"
        assert pause is not None
        pauses.append(pause)
        assert await reconcile_after(harness, pause) == REPORT_ERROR_SECONDS
    for pause, middle in zip(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300], strict=True):
        assert 0.75 * middle <= pause <= 1.25 * middle
    harness.client.create_errors.clear()
    await reconcile_after(harness, 400)
    harness.sync_cache()
    await harness.reconcile()
    assert harness.condition("PodsReady")["reason"] == "PodsStarting"
    assert "reason" not in harness.status()


async def test_job_restarts_although_its_own_objects_use_up_the_quota() -> None:
    harness = await start_job()
    harness.client.quota = {"Service": 1, "ConfigMap": 1}
    harness.make_ready("j-0", "j-1")
    await harness.reconcile()
    body = harness.client.objects["Pod", "j-1"]
    body["status"] = CRASHED
    harness.cache.put_pod(harness.client.bump_version(body))
    await harness.reconcile()
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1", "j-1-r"]
    assert harness.status()["reason"] == "Crashed"


async def test_job_resumes_although_its_own_objects_use_up_the_quota() -> None:
    harness = await start_job()
    harness.client.quota = {"Service": 1, "ConfigMap": 1}
    for suspend in (True, False):
        harness.client.put_job(suspend=suspend)
        harness.sync_cache()
        await harness.reconcile()
        if suspend:
            for name in harness.client.pod_names():
                del harness.client.objects["Pod", name]
    harness.sync_cache()
    await harness.reconcile()
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1"]


async def test_operator_without_its_cache_finds_pods_that_use_up_the_quota() -> None:
    harness = await start_job()
    harness.client.quota = {"Service": 1, "ConfigMap": 1, "Pod": 2}
    harness.restart_operator()
    harness.cache.put_job(harness.client.objects["FineTuneJob", "j"])  # the cache has none of its pods yet
    assert await harness.reconcile() is None
    harness.sync_cache()
    await harness.reconcile()
    assert harness.condition("PodsReady")["reason"] == "PodsStarting"


async def test_deleted_service_is_created_again_with_the_next_pod() -> None:
    harness = await start_job()
    harness.make_ready("j-0", "j-1")
    await harness.reconcile()
    del harness.client.objects["Service", "j"]
    body = harness.client.objects["Pod", "j-1"]
    body["status"] = CRASHED
    harness.cache.put_pod(harness.client.bump_version(body))
    harness.client.log.clear()
    await harness.reconcile()
    assert [entry for entry in harness.client.log if entry.startswith("create")] == ["create Service j", "create Pod j-1-r"]


async def test_kept_pods_make_room_in_a_quota_of_all_pods() -> None:
    harness = await start_job()
    harness.client.quota = {"Pod": 2}  # count/pods, which includes finished pods
    harness.make_ready("j-0", "j-1")
    await harness.reconcile()
    body = harness.client.objects["Pod", "j-1"]
    body["status"] = CRASHED
    harness.cache.put_pod(harness.client.bump_version(body))
    await harness.reconcile()
    retry_after = await harness.reconcile()
    assert harness.client.log[-2:] == ["delete Pod j-1", "status"] or "delete Pod j-1" in harness.client.log
    del harness.client.objects["Pod", "j-1"]
    harness.sync_cache()
    assert retry_after is not None
    await reconcile_after(harness, retry_after)
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1-r"]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_raises_temporary_api_errors(status: int) -> None:
    harness = ReconcilerHarness()
    harness.client.put_job()
    harness.client.create_errors["Pod"] = ApiError(status, "", "try later")
    harness.sync_cache()
    with pytest.raises(ApiError):
        await harness.reconcile()
    harness.client.create_errors.clear()
    await harness.reconcile()
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1"]
