"""The reconciler with a fake client: order of writes, conflicts, rejections and a stale cache."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.fake_kubernetes import KEY, ReconcilerHarness, apply_merge_patch

from finetune_operator.client.kubernetes import ApiError
from finetune_operator.controller.action_executor import REPORT_ERROR_SECONDS
from finetune_operator.controller.reconciler import CONFLICT_RETRY_SECONDS
from finetune_operator.controller.status_writer import merge_patch
from finetune_trainer.protocol.outcome import Progress, RunStatus


async def started(**settings: Any) -> ReconcilerHarness:
    """A job whose pods were created and are in the cache."""
    harness = ReconcilerHarness(**settings)
    harness.client.put_job()
    harness.sync_cache()
    await harness.reconcile()
    harness.sync_cache()
    return harness


def make_ready(harness: ReconcilerHarness, *names: str) -> None:
    for name in names:
        body = harness.client.objects["Pod", name]
        body["status"] = {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
        harness.client.bump_version(body)
    harness.sync_cache()


async def test_writes_status_then_creates_resources_then_pods() -> None:
    harness = await started()
    assert harness.client.log == ["status", "create Service j", "create ConfigMap j", "create Pod j-0", "create Pod j-1"]
    assert (harness.status()["phase"], harness.status()["workers"]) == ("Pending", {"ready": 0, "desired": 2, "summary": "0/2"})


async def test_writes_nothing_without_changes() -> None:
    harness = await started()
    harness.client.log.clear()
    for _ in range(3):
        await harness.reconcile()
        harness.sync_cache()
    assert harness.client.log == []


async def test_needs_two_status_writes_until_running() -> None:
    harness = await started()
    for name in ("j-0", "j-1"):
        make_ready(harness, name)
        await harness.reconcile()
    assert harness.status()["phase"] == "Running"
    assert harness.client.log.count("status") == 2


async def test_stale_cache_does_not_create_pods_twice() -> None:
    harness = ReconcilerHarness()
    harness.client.put_job()
    harness.sync_cache()
    await harness.reconcile()
    before = list(harness.client.log)
    await harness.reconcile()
    assert harness.client.log == before


async def test_accepts_pods_created_by_another_operator() -> None:
    harness = await started()
    writes = harness.client.log.count("create Pod j-0")
    harness.restart_operator()
    harness.cache.put_job(harness.client.objects["FineTuneJob", "j"])  # the cache has none of its pods yet
    await harness.reconcile()
    assert harness.client.log.count("create Pod j-0") == writes
    assert harness.states.get(harness.cache.jobs[KEY]).create_error is None


async def test_stale_job_is_not_written() -> None:
    harness = await started()
    harness.restart_operator()
    harness.sync_cache()
    harness.client.bump_version(harness.client.objects["FineTuneJob", "j"])  # another client wrote, and the watch is late
    make_ready(harness, "j-0", "j-1")
    del harness.cache.jobs[KEY]
    stale = dict(harness.client.objects["FineTuneJob", "j"])
    stale["metadata"] = stale["metadata"] | {"resourceVersion": "1"}
    harness.cache.put_job(stale)
    harness.client.log.clear()
    assert await harness.reconcile() == CONFLICT_RETRY_SECONDS
    assert harness.client.log == []
    harness.sync_cache()
    await harness.reconcile()
    assert harness.status()["phase"] == "Running"


async def test_removes_deleted_job_from_cache() -> None:
    harness = await started()
    make_ready(harness, "j-0", "j-1")
    del harness.client.objects["FineTuneJob", "j"]
    assert await harness.reconcile() == CONFLICT_RETRY_SECONDS
    assert KEY not in harness.cache.jobs
    assert await harness.reconcile() is None


async def test_ignores_job_that_is_being_deleted() -> None:
    harness = ReconcilerHarness()
    harness.client.put_job()["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    harness.sync_cache()
    assert await harness.reconcile() is None
    assert harness.client.log == []


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


async def test_reports_missing_secret_until_it_exists() -> None:
    harness = ReconcilerHarness()
    body = harness.client.put_job()
    body["spec"]["checkpoint"]["credentials"] = "s3"
    harness.sync_cache()
    assert await harness.reconcile() == 10
    assert harness.client.pod_names() == []
    assert "spec.checkpoint.credentials: the Secret 's3' does not exist" in harness.condition("PodsReady")["message"]
    harness.client.secrets.add("s3")
    await harness.reconcile()
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1"]


async def test_limits_rate_of_progress_writes() -> None:
    harness = await started(progress_write_interval=60)
    make_ready(harness, "j-0", "j-1")
    await harness.reconcile()
    harness.client.log.clear()
    job = harness.cache.jobs[KEY]
    first = next(pod for pod in harness.cache.pods(KEY) if pod.index == 0)
    run = RunStatus(activity="Training", progress=Progress(step=1, total_steps=10))
    assert harness.states.record_run(job, first.uid, run)
    assert not harness.states.record_run(job, first.uid, run)
    wait = await harness.reconcile()
    assert wait is not None
    assert 0 < wait <= 60
    assert harness.client.log == []
    harness.states.get(job).last_write = float("-inf")
    await harness.reconcile()
    assert harness.status()["progress"]["step"] == 1


async def test_ignores_progress_of_replaced_pod() -> None:
    harness = await started()
    make_ready(harness, "j-0", "j-1")
    run = RunStatus(activity="Training", progress=Progress(step=9, total_steps=10))
    harness.states.record_run(harness.cache.jobs[KEY], "uid of a replaced pod", run)
    await harness.reconcile()
    assert "progress" not in harness.status()


async def test_counts_failure_once_with_stale_cache() -> None:
    harness = await started()
    make_ready(harness, "j-0", "j-1")
    await harness.reconcile()
    harness.client.log.clear()
    body = harness.client.objects["Pod", "j-1"]
    body["status"] = {
        "phase": "Failed",
        "containerStatuses": [{"name": "trainer", "state": {"terminated": {"exitCode": 1}}}],
    }
    harness.cache.put_pod(harness.client.bump_version(body))
    await harness.reconcile()
    await harness.reconcile()  # the cache has neither the status write nor the deletion yet
    assert harness.status()["restarts"]["failures"] == 1
    assert harness.client.log[:3] == ["status", "delete Pod j-1", "event Crashed"]
    harness.restart_operator()
    harness.sync_cache()
    await harness.reconcile()
    assert harness.status()["restarts"]["failures"] == 1
    del harness.client.objects["Pod", "j-1"]
    harness.sync_cache()
    await harness.reconcile()
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1"]


async def test_uncached_pods_are_not_counted_as_lost() -> None:
    harness = await started()
    make_ready(harness, "j-0", "j-1")
    await harness.reconcile()
    harness.restart_operator()
    harness.cache.put_job(harness.client.objects["FineTuneJob", "j"])  # running, but the cache has no pods
    harness.client.log.clear()
    await harness.reconcile()
    assert harness.client.log == []
    assert harness.status()["phase"] == "Running"


async def test_failure_counted_by_another_operator_is_not_counted_again() -> None:
    harness = await started()
    make_ready(harness, "j-0", "j-1")
    body = harness.client.objects.pop(("Pod", "j-1"))
    body["status"] = {"phase": "Failed", "containerStatuses": [{"name": "trainer", "state": {"terminated": {"exitCode": 1}}}]}
    harness.cache.put_pod(harness.client.bump_version(body))  # deleted and replaced, but the watch is late
    replaced = {**body, "metadata": {**body["metadata"], "uid": "new", "resourceVersion": "9999"}, "status": {}}
    harness.client.objects["Pod", "j-1"] = replaced
    await harness.reconcile()
    assert harness.status()["restarts"]["failures"] == 0
    assert harness.client.log.count("delete Pod j-1") == 0


async def test_recognizes_own_writes() -> None:
    harness = await started()
    assert harness.states.is_own_write(harness.cache.jobs[KEY])
    harness.client.put_job(suspend=True)
    harness.sync_cache()
    assert not harness.states.is_own_write(harness.cache.jobs[KEY])


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({}, {}, {}),
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": 2, "b": 3}, {"a": 2, "b": 3}),
        ({"a": 1, "b": 2}, {"a": 1}, {"b": None}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"x": 1}}, {"a": {"y": None}}),
        ({"a": {"x": 1}}, {"a": {"x": 1}}, {}),
        ({"a": [1, 2]}, {"a": [2]}, {"a": [2]}),
        ({"a": {"x": 1}}, {"a": 1}, {"a": 1}),
    ],
)
def test_merge_patch(old: dict[str, Any], new: dict[str, Any], patch: dict[str, Any]) -> None:
    assert merge_patch(old, new) == patch
    assert apply_merge_patch(old, patch) == new
