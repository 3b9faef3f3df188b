"""Status writes: conflicts, the rate limit for progress, and merge patches."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.fake_kubernetes import KEY, apply_merge_patch, start_job

from finetune_operator.controller.reconciler import CONFLICT_RETRY_SECONDS
from finetune_operator.controller.status_writer import merge_patch
from finetune_trainer.protocol.outcome import Progress, RunStatus


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
    assert await harness.reconcile() == CONFLICT_RETRY_SECONDS
    assert harness.client.log == []
    harness.sync_cache()
    await harness.reconcile()
    assert harness.status()["phase"] == "Running"


async def test_limits_rate_of_progress_writes() -> None:
    harness = await start_job(progress_write_interval=60)
    harness.make_ready("j-0", "j-1")
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
