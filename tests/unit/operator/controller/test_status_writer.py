"""Status writes: conflicts, the rate limit for progress, and merge patches."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

import pytest
from tests.support.fake_kubernetes import KEY, ReconcilerHarness, apply_merge_patch, job_body, start_job

from finetune_operator.client.types import JobKey
from finetune_operator.controller.status_writer import COALESCE_SECONDS, merge_patch
from finetune_operator.controller.workqueue import OutdatedError
from finetune_trainer.protocol.outcome import DataSummary, Progress, RunStatus, SavedCheckpoint


async def test_stale_job_is_not_written() -> None:
    harness = await start_job()
    harness.restart_operator()
    harness.sync_cache()
    harness.client.bump_version(harness.client.objects["FineTuneJob", "j"])  # another client wrote, and the watch is late
    harness.make_ready("j-0", "j-1")
    del harness.cache.jobs[KEY]
    stale = dict(harness.client.objects["FineTuneJob", "j"])
    stale["metadata"] = stale["metadata"] | {"resourceVersion": "1"}
    harness.cache.put_job(stale)
    harness.client.log.clear()
    with pytest.raises(OutdatedError):
        await harness.reconcile()
    assert harness.client.log == []
    harness.sync_cache()
    await harness.reconcile()
    assert harness.status()["phase"] == "Running"


async def running_job(**settings: Any) -> ReconcilerHarness:
    harness = await start_job(**settings)
    harness.make_ready("j-0", "j-1")
    await harness.reconcile()
    assert harness.status()["phase"] == "Running"
    harness.client.log.clear()
    return harness


def report(harness: ReconcilerHarness, **run: Any) -> bool:
    """Report a run status of the first pod. Returns whether it is new."""
    first = next(pod for pod in harness.cache.pods(KEY) if pod.index == 0)
    return harness.states.record_run(harness.cache.jobs[KEY], first.uid, RunStatus(**run))


async def test_limits_rate_of_progress_writes() -> None:
    harness = await running_job(progress_write_interval=60)
    assert report(harness, progress=Progress(step=1, total_steps=10))
    assert not report(harness, progress=Progress(step=1, total_steps=10))
    wait = await harness.reconcile()
    assert wait is not None
    assert 59 < wait <= 60
    assert harness.client.log == []
    harness.states.get(harness.cache.jobs[KEY]).last_write = float("-inf")
    await harness.reconcile()
    assert harness.status()["progress"]["step"] == 1


SAVED = SavedCheckpoint(step=5, time="2026-01-01T12:00:00Z", uri="s3://out/j/manifests/step-00000005.json")


@pytest.mark.parametrize(
    "run",
    [
        pytest.param({"activity": "Evaluating"}, id="activity"),
        pytest.param({"restart_cause": "Crashed: rank 1 died"}, id="restart in place"),
        pytest.param({"checkpoint_error": "StorageUnavailable: 503"}, id="checkpoint failed"),
        pytest.param({"checkpoint": SAVED}, id="first checkpoint"),
        pytest.param({"data": DataSummary(rows=9)}, id="data"),
    ],
)
async def test_writes_everything_but_progress_at_once(run: dict[str, Any]) -> None:
    harness = await running_job(progress_write_interval=60)
    report(harness, **run)
    wait = await harness.reconcile()
    if wait is not None:
        assert wait < COALESCE_SECONDS + 0.01
        await asyncio.sleep(wait + 0.01)
        await harness.reconcile()
    assert harness.client.log[0] == "status"


async def test_unschedulable_pod_is_reported_within_a_second_beside_5000_finished_jobs() -> None:
    harness = ReconcilerHarness(progress_write_interval=5)
    finished = harness.cache.put_job(job_body(1, uid="old") | {"status": {"phase": "Succeeded"}})
    harness.cache.remove_job(KEY, "old")
    for number in range(5000):
        key = JobKey("team", f"old-{number}")
        harness.cache.jobs[key] = dataclasses.replace(finished, key=key, uid=f"old-{number}")
    harness.client.put_job()
    harness.sync_cache()
    started = time.monotonic()
    await harness.reconcile()
    pod = harness.client.objects["Pod", "j-1"]
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available"}
    pod["status"] = {"phase": "Pending", "conditions": [scheduled]}
    harness.client.bump_version(pod)
    harness.sync_cache()
    while harness.condition("PodsReady")["reason"] != "Unschedulable":
        wait = await harness.reconcile()
        assert wait is None or wait < 1
        await asyncio.sleep(wait or 0)
    assert time.monotonic() - started < 1
    harness.make_ready("j-0", "j-1")
    await harness.reconcile()
    report(harness, progress=Progress(step=1, total_steps=10))
    wait = await harness.reconcile()
    assert wait is not None
    assert wait <= 5, "finished jobs do not slow down the progress of the others"


async def test_flapping_condition_is_written_in_a_burst_and_then_rarely() -> None:
    harness = await start_job(progress_write_interval=1e-9)
    harness.client.log.clear()
    waits = []
    for number in range(20):
        pod = harness.client.objects["Pod", "j-0"]
        waiting = {"reason": "ErrImagePull" if number % 2 else "ImagePullBackOff", "message": "no such image"}
        pod["status"] = {"phase": "Pending", "containerStatuses": [{"name": "trainer", "state": {"waiting": waiting}}]}
        harness.client.bump_version(pod)
        harness.sync_cache()
        waits.append(await harness.reconcile())
    assert harness.client.log == ["status"] * 5
    assert any(waits), "what is not written at once is written later"
    assert all(wait is None or wait <= 2 for wait in waits)


async def test_ready_pods_of_one_moment_are_written_together() -> None:
    harness = await start_job(nodes=4, progress_write_interval=5)
    harness.client.log.clear()
    for number in range(3):
        harness.make_ready(f"j-{number}")
        wait = await harness.reconcile()
    assert harness.client.log == []
    assert wait is not None
    await asyncio.sleep(wait + 0.01)
    await harness.reconcile()
    assert harness.client.log == ["status"]
    assert harness.status()["workers"]["summary"] == "3/4"


async def test_keeps_what_a_newer_operator_wrote() -> None:
    harness = await running_job()
    status = harness.status()
    status |= {"invented": {"later": 1}, "restarts": status["restarts"] | {"alsoLater": 2}}
    status["conditions"][0]["severity"] = "low"
    transition = {"lastTransitionTime": "2026-01-01T12:00:00Z"}
    status["conditions"].append({"type": "Later", "status": "True", "reason": "R", "message": "m", "extra": 3} | transition)
    harness.client.bump_version(harness.client.objects["FineTuneJob", "j"])
    harness.restart_operator()
    harness.sync_cache()
    pod = harness.client.objects["Pod", "j-1"]
    terminated = {"exitCode": 1, "reason": "Error"}
    pod["status"] = {"phase": "Failed", "containerStatuses": [{"name": "trainer", "state": {"terminated": terminated}}]}
    harness.client.bump_version(pod)
    harness.sync_cache()
    await harness.reconcile()
    status = harness.status()
    assert status["phase"] == "Restarting"
    assert (status["invented"], status["restarts"]["alsoLater"], status["restarts"]["total"]) == ({"later": 1}, 2, 1)
    assert harness.condition("Later")["extra"] == 3
    assert status["conditions"][0]["severity"] == "low"


async def test_number_that_json_cannot_represent_is_left_out() -> None:
    harness = await running_job(progress_write_interval=1e-9, progress_writes_per_second=1e9)
    report(harness, progress=Progress(step=1, total_steps=10, loss=float("nan"), eval_loss=float("inf")))
    await harness.reconcile()
    progress = harness.status()["progress"]
    assert progress["step"] == 1
    assert {"loss", "evalLoss"}.isdisjoint(progress)


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        pytest.param({}, {}, {}, id="both empty"),
        pytest.param({"a": 1}, {"a": 1}, {}, id="unchanged"),
        pytest.param({"a": 1}, {"a": 2, "b": 3}, {"a": 2, "b": 3}, id="changed and added"),
        pytest.param({"a": 1, "b": 2}, {"a": 1}, {"b": None}, id="removed"),
        pytest.param({"a": {"x": 1, "y": 2}}, {"a": {"x": 1}}, {"a": {"y": None}}, id="removed in a nested object"),
        pytest.param({"a": {"x": 1}}, {"a": {"x": 1}}, {}, id="unchanged nested object"),
        pytest.param({"a": [1, 2]}, {"a": [2]}, {"a": [2]}, id="changed list"),
        pytest.param({"a": {"x": 1}}, {"a": 1}, {"a": 1}, id="object replaced by a value"),
    ],
)
def test_merge_patch(old: dict[str, Any], new: dict[str, Any], patch: dict[str, Any]) -> None:
    assert merge_patch(old, new) == patch
    assert apply_merge_patch(old, patch) == new
