"""Name conflicts and rejections when objects are created."""

from __future__ import annotations

import pytest
from tests.support.fake_kubernetes import ReconcilerHarness

from finetune_operator.client.kubernetes import ApiError
from finetune_operator.controller.action_executor import REPORT_ERROR_SECONDS


@pytest.mark.parametrize("kind", ["Service", "ConfigMap", "Pod"])
async def test_reports_name_conflict(kind: str) -> None:
    harness = ReconcilerHarness()
    name = "j-0" if kind == "Pod" else "j"
    harness.client.objects[kind, name] = {"kind": kind, "metadata": {"name": name, "uid": "x", "labels": {}}}
    harness.client.put_job()
    harness.cache.put_job(harness.client.objects["FineTuneJob", "j"])
    assert await harness.reconcile() == REPORT_ERROR_SECONDS
    assert await harness.reconcile() == 10
    condition = harness.condition("PodsReady")
    assert condition["reason"] == "NameConflict"
    assert f"{kind} {name} exists but does not belong to this job" in condition["message"]
    if kind != "Pod":
        assert harness.client.pod_names() == []
    del harness.client.objects[kind, name]
    await harness.reconcile()
    harness.sync_cache()
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1"]


@pytest.mark.parametrize("status", [400, 403, 422])
async def test_reports_and_retries_rejected_pod(status: int) -> None:
    harness = ReconcilerHarness(progress_write_interval=1e-9, progress_writes_per_second=1e9)
    harness.client.put_job()
    harness.client.create_errors["Pod"] = ApiError(status, "Forbidden", 'pods "j-0" is forbidden: exceeded quota')
    harness.sync_cache()
    assert await harness.reconcile() == REPORT_ERROR_SECONDS
    assert await harness.reconcile() == 10
    assert "exceeded quota" in harness.condition("PodsReady")["message"]
    harness.client.create_errors.clear()
    await harness.reconcile()
    harness.sync_cache()
    await harness.reconcile()
    assert harness.condition("PodsReady")["reason"] == "PodsStarting"


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
