"""One pass: the order of its writes, and what it makes of the API server's answers."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.fake_kubernetes import KEY, Setup, merged

from finetune_operator.client.kubernetes import ApiError
from finetune_operator.controller.reconciler import CONFLICT_PAUSE, SAY_SOON, merge_patch
from finetune_trainer.protocol.outcome import Progress, RunStatus


async def started(**settings: Any) -> Setup:
    """A job whose pods were created, seen by the watch."""
    setup = Setup(**settings)
    setup.cluster.put_job()
    setup.watch()
    await setup.one_pass()
    setup.watch()
    return setup


def make_ready(setup: Setup, *names: str) -> None:
    for name in names:
        body = setup.cluster.objects["Pod", name]
        body["status"] = {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
        setup.cluster.touch(body)
    setup.watch()


async def test_status_first_then_shared_objects_then_pods() -> None:
    setup = await started()
    assert setup.cluster.log == ["status", "create Service j", "create ConfigMap j", "create Pod j-0", "create Pod j-1"]
    assert (setup.status()["phase"], setup.status()["workers"]) == ("Pending", {"ready": 0, "desired": 2, "summary": "0/2"})


async def test_nothing_is_written_when_nothing_changed() -> None:
    setup = await started()
    setup.cluster.log.clear()
    for _ in range(3):
        await setup.one_pass()
        setup.watch()
    assert setup.cluster.log == []


async def test_two_status_writes_until_running() -> None:
    setup = await started()
    for name in ("j-0", "j-1"):
        make_ready(setup, name)
        await setup.one_pass()
    assert setup.status()["phase"] == "Running"
    assert setup.cluster.log.count("status") == 2


async def test_a_late_watch_does_not_make_pods_twice() -> None:
    setup = Setup()
    setup.cluster.put_job()
    setup.watch()
    await setup.one_pass()
    before = list(setup.cluster.log)
    await setup.one_pass()
    assert setup.cluster.log == before


async def test_another_operator_was_faster() -> None:
    setup = await started()
    writes = setup.cluster.log.count("create Pod j-0")
    setup.start()
    setup.cache.put_job(setup.cluster.objects["FineTuneJob", "j"])  # its pods were not shown yet
    await setup.one_pass()
    assert setup.cluster.log.count("create Pod j-0") == writes
    assert setup.controller.memory(setup.cache.jobs[KEY]).create_error is None


async def test_a_stale_sight_of_the_job_writes_nothing() -> None:
    setup = await started()
    setup.start()
    setup.watch()
    setup.cluster.touch(setup.cluster.objects["FineTuneJob", "j"])  # somebody wrote, the watch is late
    make_ready(setup, "j-0", "j-1")
    del setup.cache.jobs[KEY]
    stale = dict(setup.cluster.objects["FineTuneJob", "j"])
    stale["metadata"] = stale["metadata"] | {"resourceVersion": "1"}
    setup.cache.put_job(stale)
    setup.cluster.log.clear()
    assert await setup.one_pass() == CONFLICT_PAUSE
    assert setup.cluster.log == []
    setup.watch()
    await setup.one_pass()
    assert setup.status()["phase"] == "Running"


async def test_a_deleted_job_is_forgotten() -> None:
    setup = await started()
    make_ready(setup, "j-0", "j-1")
    del setup.cluster.objects["FineTuneJob", "j"]
    assert await setup.one_pass() == CONFLICT_PAUSE
    assert KEY not in setup.cache.jobs
    assert await setup.one_pass() is None


async def test_a_job_that_is_being_deleted_is_left_alone() -> None:
    setup = Setup()
    setup.cluster.put_job()["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    setup.watch()
    assert await setup.one_pass() is None
    assert setup.cluster.log == []


@pytest.mark.parametrize("kind", ["Service", "ConfigMap", "Pod"])
async def test_a_name_that_is_taken(kind: str) -> None:
    setup = Setup()
    name = "j-0" if kind == "Pod" else "j"
    setup.cluster.objects[kind, name] = {"kind": kind, "metadata": {"name": name, "uid": "x", "labels": {}}}
    setup.cluster.put_job()
    setup.cache.put_job(setup.cluster.objects["FineTuneJob", "j"])
    assert await setup.one_pass() == SAY_SOON
    assert await setup.one_pass() == 10
    condition = setup.condition("PodsReady")
    assert condition["reason"] == "NameTaken"
    assert f"{kind} {name} exists and is not this job's" in condition["message"]
    if kind != "Pod":
        assert setup.cluster.pods() == []
    del setup.cluster.objects[kind, name]
    await setup.one_pass()
    setup.watch()
    assert sorted(setup.cluster.pods()) == ["j-0", "j-1"]


@pytest.mark.parametrize("status", [400, 403, 422])
async def test_a_refused_pod_is_said_and_tried_again(status: int) -> None:
    setup = Setup(progress_write_interval=1e-9, progress_writes_per_second=1e9)
    setup.cluster.put_job()
    setup.cluster.refuse["Pod"] = ApiError(status, "Forbidden", 'pods "j-0" is forbidden: exceeded quota')
    setup.watch()
    assert await setup.one_pass() == SAY_SOON
    assert await setup.one_pass() == 10
    assert "exceeded quota" in setup.condition("PodsReady")["message"]
    setup.cluster.refuse.clear()
    await setup.one_pass()
    setup.watch()
    await setup.one_pass()
    assert setup.condition("PodsReady")["reason"] == "PodsStarting"


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_an_api_server_in_trouble_is_the_queues_business(status: int) -> None:
    setup = Setup()
    setup.cluster.put_job()
    setup.cluster.refuse["Pod"] = ApiError(status, "", "try later")
    setup.watch()
    with pytest.raises(ApiError):
        await setup.one_pass()
    setup.cluster.refuse.clear()
    await setup.one_pass()
    assert sorted(setup.cluster.pods()) == ["j-0", "j-1"]


async def test_missing_secrets_are_named_until_they_exist() -> None:
    setup = Setup()
    body = setup.cluster.put_job()
    body["spec"]["checkpoint"]["credentials"] = "s3"
    setup.watch()
    assert await setup.one_pass() == 10
    assert setup.cluster.pods() == []
    assert "spec.checkpoint.credentials: there is no Secret 's3'" in setup.condition("PodsReady")["message"]
    setup.cluster.secrets.add("s3")
    await setup.one_pass()
    assert sorted(setup.cluster.pods()) == ["j-0", "j-1"]


async def test_progress_is_written_now_and_then() -> None:
    setup = await started(progress_write_interval=60)
    make_ready(setup, "j-0", "j-1")
    await setup.one_pass()
    setup.cluster.log.clear()
    job = setup.cache.jobs[KEY]
    first = next(pod for pod in setup.cache.pods(KEY) if pod.index == 0)
    run = RunStatus(activity="Training", progress=Progress(step=1, total_steps=10))
    assert setup.controller.keep_run(job, first.uid, run)
    assert not setup.controller.keep_run(job, first.uid, run)
    wait = await setup.one_pass()
    assert wait is not None
    assert 0 < wait <= 60
    assert setup.cluster.log == []
    setup.controller.memory(job).written = float("-inf")
    await setup.one_pass()
    assert setup.status()["progress"]["step"] == 1


async def test_progress_of_a_replaced_pod_is_not_taken_for_the_new_ones() -> None:
    setup = await started()
    make_ready(setup, "j-0", "j-1")
    run = RunStatus(activity="Training", progress=Progress(step=9, total_steps=10))
    setup.controller.keep_run(setup.cache.jobs[KEY], "uid of an earlier pod", run)
    await setup.one_pass()
    assert "progress" not in setup.status()


async def test_a_failure_is_counted_once_whatever_the_watch_shows() -> None:
    setup = await started()
    make_ready(setup, "j-0", "j-1")
    await setup.one_pass()
    setup.cluster.log.clear()
    body = setup.cluster.objects["Pod", "j-1"]
    body["status"] = {
        "phase": "Failed",
        "containerStatuses": [{"name": "trainer", "state": {"terminated": {"exitCode": 1}}}],
    }
    setup.cache.put_pod(setup.cluster.touch(body))
    await setup.one_pass()
    await setup.one_pass()  # neither the status nor the deletion was shown yet
    assert setup.status()["restarts"]["failures"] == 1
    assert setup.cluster.log[:3] == ["status", "delete Pod j-1", "event Crashed"]
    setup.start()
    setup.watch()
    await setup.one_pass()
    assert setup.status()["restarts"]["failures"] == 1
    del setup.cluster.objects["Pod", "j-1"]
    setup.watch()
    await setup.one_pass()
    assert sorted(setup.cluster.pods()) == ["j-0", "j-1"]


async def test_pods_that_the_watch_has_not_shown_yet_are_not_taken_for_lost() -> None:
    setup = await started()
    make_ready(setup, "j-0", "j-1")
    await setup.one_pass()
    setup.start()
    setup.cache.put_job(setup.cluster.objects["FineTuneJob", "j"])  # running, and no pod in sight
    setup.cluster.log.clear()
    await setup.one_pass()
    assert setup.cluster.log == []
    assert setup.status()["phase"] == "Running"


async def test_a_failure_that_another_operator_has_counted_is_not_counted_again() -> None:
    setup = await started()
    make_ready(setup, "j-0", "j-1")
    body = setup.cluster.objects.pop(("Pod", "j-1"))
    body["status"] = {"phase": "Failed", "containerStatuses": [{"name": "trainer", "state": {"terminated": {"exitCode": 1}}}]}
    setup.cache.put_pod(setup.cluster.touch(body))  # long gone and replaced, but the watch is late
    replaced = {**body, "metadata": {**body["metadata"], "uid": "new", "resourceVersion": "9999"}, "status": {}}
    setup.cluster.objects["Pod", "j-1"] = replaced
    await setup.one_pass()
    assert setup.status()["restarts"]["failures"] == 0
    assert setup.cluster.log.count("delete Pod j-1") == 0


async def test_its_own_writes_are_no_news() -> None:
    setup = await started()
    assert setup.controller.wrote(setup.cache.jobs[KEY])
    setup.cluster.put_job(suspend=True)
    setup.watch()
    assert not setup.controller.wrote(setup.cache.jobs[KEY])


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
    assert merged(old, patch) == new
