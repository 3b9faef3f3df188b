"""The reconciler with a fake client: order of writes, and reconciles with a stale cache."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.fake_kubernetes import KEY, ReconcilerHarness, start_job

from finetune_operator.client.errors import ApiError
from finetune_operator.controller.workqueue import OutdatedError
from finetune_trainer.protocol.outcome import Outcome, Reason


async def test_writes_status_then_creates_resources_then_pods() -> None:
    harness = await start_job()
    assert harness.client.log == ["status", "create Service finetune-trainers", "create Pod j-0", "create Pod j-1"]
    selector = "finetune-operator.io/job=j"
    workers = {"ready": 0, "desired": 2, "replicas": 2, "summary": "0/2", "selector": selector}
    assert (harness.status()["phase"], harness.status()["workers"]) == ("Pending", workers)


async def test_writes_nothing_without_changes() -> None:
    harness = await start_job()
    harness.client.log.clear()
    for _ in range(3):
        await harness.reconcile()
        harness.sync_cache()
    assert harness.client.log == []


async def test_needs_two_status_writes_until_running() -> None:
    harness = await start_job(progress_write_interval=5)
    for name in ("j-0", "j-1"):
        harness.make_ready(name)
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
    harness = await start_job()
    writes = harness.client.log.count("create Pod j-0")
    harness.restart_operator()
    harness.cache.put_job(harness.client.objects["FineTuneJob", "j"])  # the cache has none of its pods yet
    await harness.reconcile()
    assert harness.client.log.count("create Pod j-0") == writes
    assert harness.states.get(harness.cache.jobs[KEY]).create_error is None


async def test_removes_deleted_job_from_cache() -> None:
    harness = await start_job()
    harness.make_ready("j-0", "j-1")
    del harness.client.objects["FineTuneJob", "j"]
    with pytest.raises(OutdatedError):
        await harness.reconcile()
    assert KEY not in harness.cache.jobs
    assert await harness.reconcile() is None


async def test_ignores_job_that_is_being_deleted() -> None:
    harness = ReconcilerHarness()
    harness.client.put_job()["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    harness.sync_cache()
    assert await harness.reconcile() is None
    assert harness.client.log == []


async def test_counts_failure_once_with_stale_cache() -> None:
    harness = await start_job()
    harness.make_ready("j-0", "j-1")
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
    assert harness.client.log[:3] == ["status", "create Pod j-1-r", "event Crashed"]
    harness.restart_operator()
    harness.sync_cache()
    await harness.reconcile()
    assert harness.status()["restarts"]["failures"] == 1
    assert harness.status()["retainedPods"] == ["j-1"]
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1", "j-1-r"]


async def test_uncached_pods_are_not_counted_as_lost() -> None:
    harness = await start_job()
    harness.make_ready("j-0", "j-1")
    await harness.reconcile()
    harness.restart_operator()
    harness.cache.put_job(harness.client.objects["FineTuneJob", "j"])  # running, but the cache has no pods
    harness.client.log.clear()
    await harness.reconcile()
    assert harness.client.log == []
    assert harness.status()["phase"] == "Running"


async def test_failure_counted_by_another_operator_is_not_counted_again() -> None:
    harness = await start_job()
    harness.make_ready("j-0", "j-1")
    body = harness.client.objects.pop(("Pod", "j-1"))
    body["status"] = {"phase": "Failed", "containerStatuses": [{"name": "trainer", "state": {"terminated": {"exitCode": 1}}}]}
    harness.cache.put_pod(harness.client.bump_version(body))  # deleted and replaced, but the watch is late
    replaced = {**body, "metadata": {**body["metadata"], "uid": "new", "resourceVersion": "9999"}, "status": {}}
    harness.client.objects["Pod", "j-1"] = replaced
    await harness.reconcile()
    assert harness.status()["restarts"]["failures"] == 0
    assert harness.client.log.count("delete Pod j-1") == 0


async def test_pods_that_vanish_before_they_run_are_counted_once() -> None:
    harness = await start_job()
    del harness.client.objects["Pod", "j-1"]
    harness.sync_cache()
    await harness.reconcile()
    assert harness.status()["pending"]["releases"] == 1
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1"]
    await harness.reconcile()
    assert harness.status()["pending"]["releases"] == 1
    harness.sync_cache()
    del harness.client.objects["Pod", "j-1"]
    harness.sync_cache()
    await harness.reconcile()
    assert harness.status()["pending"]["releases"] == 2
    assert harness.client.log.count("delete Pod j-0") == 1


async def test_pods_that_vanish_before_an_action_fails_are_counted_once() -> None:
    harness = await start_job()
    del harness.client.objects["Pod", "j-1"]
    harness.sync_cache()
    harness.client.create_errors["Pod"] = ApiError(500, "", "etcd is unavailable")
    with pytest.raises(ApiError):
        await harness.reconcile()
    harness.client.create_errors.clear()
    await harness.reconcile()
    assert harness.status()["pending"]["releases"] == 1
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1"]


async def test_pods_that_vanish_while_the_status_is_written_are_counted() -> None:
    harness = await start_job()
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node has room"}
    body = harness.client.objects["Pod", "j-1"]
    body["status"] = {"phase": "Pending", "conditions": [condition]}
    harness.client.bump_version(body)
    harness.sync_cache()
    write = harness.client.patch_status

    async def write_while_the_pod_is_deleted(*arguments: Any) -> dict[str, Any]:
        harness.client.objects.pop(("Pod", "j-1"), None)
        harness.sync_cache()
        return await write(*arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(harness.client, "patch_status", write_while_the_pod_is_deleted)
        await harness.reconcile()
    assert harness.status()["reason"] == "Unschedulable"
    await harness.reconcile()
    assert harness.status()["pending"]["releases"] == 1
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1"]


async def test_pods_that_vanish_while_the_operator_is_away_are_created_again() -> None:
    harness = await start_job()
    del harness.client.objects["Pod", "j-1"]
    harness.restart_operator()
    harness.sync_cache()
    await harness.reconcile()
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1"]
    assert "pending" not in harness.status()


async def test_events_are_not_lost_when_an_action_fails() -> None:
    harness = await start_job()
    harness.make_ready("j-0", "j-1")
    await harness.reconcile()
    body = harness.client.objects["Pod", "j-1"]
    terminated = {"terminated": {"exitCode": 1}}
    body["status"] = {"phase": "Failed", "containerStatuses": [{"name": "trainer", "state": terminated}]}
    harness.client.bump_version(body)
    harness.sync_cache()
    harness.client.log.clear()
    harness.client.create_errors["Pod"] = ApiError(500, "", "etcd is unavailable")
    with pytest.raises(ApiError):
        await harness.reconcile()
    assert harness.client.log == ["status", "event Crashed"]
    harness.client.create_errors.clear()
    await harness.reconcile()
    assert [line for line in harness.client.log if line.startswith("event")] == ["event Crashed"]
    assert len(harness.client.pod_names()) == 3, "the failed pod is kept, and has a replacement"


async def test_pod_that_does_not_terminate_warns_once() -> None:
    harness = await start_job()
    harness.make_ready("j-0", "j-1")
    await harness.reconcile()
    harness.client.objects["Pod", "j-1"]["metadata"]["deletionTimestamp"] = "2026-01-01T11:00:00Z"
    harness.client.bump_version(harness.client.objects["Pod", "j-1"])
    harness.sync_cache()
    for _ in range(10):
        await harness.reconcile()
    events = [line for line in harness.client.log if line.startswith("event")]
    assert events.count("event PodForceDeleted") == 1
    assert len(events) <= 3, "the first one, the count of its repetition, and that of the disruption"


UNREADABLE = {"phase": "Paused", "completionTime": "2026-01-01T12:00:00Z", "conditions": [{"type": "Complete"}]}


async def test_job_with_unreadable_status_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    harness = await start_job()
    harness.client.objects["FineTuneJob", "j"]["status"] = dict(UNREADABLE)
    harness.client.bump_version(harness.client.objects["FineTuneJob", "j"])
    harness.restart_operator()
    del harness.client.objects["Pod", "j-1"]
    harness.sync_cache()
    harness.client.log.clear()
    for _ in range(3):
        assert await harness.reconcile() is None
        harness.sync_cache()
    assert harness.client.log == ["status", "event StatusUnreadable"]
    assert harness.status() == UNREADABLE | {"reason": "StatusUnreadable"}
    assert harness.client.pod_names() == ["j-0"]
    assert "status.phase: 'Paused' is not one of" in caplog.text
    harness.client.objects["FineTuneJob", "j"]["status"] = {"phase": "Succeeded"}  # by the operator that wrote it before
    harness.client.bump_version(harness.client.objects["FineTuneJob", "j"])
    harness.sync_cache()
    await harness.reconcile()
    assert harness.client.pod_names() == ["j-0"]


async def test_unreadable_status_that_accepts_no_change_is_reported_by_event() -> None:
    harness = await start_job()
    harness.client.objects["FineTuneJob", "j"]["status"] = dict(UNREADABLE)
    harness.client.bump_version(harness.client.objects["FineTuneJob", "j"])
    harness.restart_operator()
    harness.sync_cache()
    harness.client.log.clear()
    harness.client.fail_next["patch_status"] = ApiError(422, "Invalid", "phase: unsupported value")
    for _ in range(3):
        assert await harness.reconcile() is None
    assert harness.client.log == ["event StatusUnreadable"]


async def test_observed_generation_follows_the_edit_of_a_finished_job() -> None:
    harness = await start_job()
    for name in ("j-0", "j-1"):
        body = harness.client.objects["Pod", name]
        terminated = {"exitCode": 0, "message": Outcome(reason=Reason.COMPLETE).model_dump_json()}
        container = {"name": "trainer", "state": {"terminated": terminated}}
        body["status"] = {"phase": "Succeeded", "containerStatuses": [container]}
        harness.client.bump_version(body)
    harness.sync_cache()
    await harness.reconcile()
    assert (harness.status()["phase"], harness.status()["observedGeneration"]) == ("Succeeded", 1)
    before = {name: value for name, value in harness.status().items() if name != "observedGeneration"}
    harness.client.put_job(ttlSecondsAfterFinished=600)
    harness.sync_cache()
    assert await harness.reconcile() == 600
    assert harness.status() == before | {"observedGeneration": 2}


@pytest.mark.parametrize("status", [{"phase": "Succeeded"}, {"phase": "Failed"}, {"completionTime": "2026-01-01T12:00:00Z"}])
async def test_finished_job_never_runs_again(status: dict[str, Any]) -> None:
    harness = ReconcilerHarness()
    harness.client.put_job()["status"] = status
    harness.sync_cache()
    for _ in range(3):
        await harness.reconcile()
    assert harness.client.pod_names() == []


async def test_failing_admission_webhook_is_reported() -> None:
    harness = ReconcilerHarness()
    harness.client.put_job()
    message = 'Internal error occurred: failed calling webhook "inject.example.com": connection refused'
    harness.client.create_errors["Pod"] = ApiError(500, "InternalError", message)
    harness.sync_cache()
    await harness.reconcile()
    await harness.reconcile()
    condition = harness.condition("PodsReady")
    assert condition["reason"] == "CreateRejected"
    assert 'failed calling webhook "inject.example.com"' in condition["message"]
