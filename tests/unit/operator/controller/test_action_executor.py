"""Name conflicts, quotas and rejections when objects are created."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.support.fake_kubernetes import ReconcilerHarness, start_job

from finetune_operator.client.errors import ApiError
from finetune_operator.controller.action_executor import REPORT_ERROR_SECONDS

CRASHED = {"phase": "Failed", "containerStatuses": [{"name": "trainer", "state": {"terminated": {"exitCode": 1}}}]}
PEERS = [{"ipBlock": {"cidr": "10.1.0.0/16"}}]
NEW_PEERS = [{"ipBlock": {"cidr": "10.2.0.0/16"}}]


async def reconcile_after(harness: ReconcilerHarness, seconds: float) -> float | None:
    """Advance the clock and reconcile."""
    harness.now += timedelta(seconds=seconds)
    return await harness.reconcile()


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("Service", "finetune-trainers", "Service finetune-trainers exists but does not select the pods of jobs"),
        ("NetworkPolicy", "j", "NetworkPolicy j exists but does not belong to this job"),
        ("Pod", "j-0", "Pod j-0 exists but does not belong to this job"),
    ],
)
async def test_reports_name_conflict(kind: str, name: str, message: str) -> None:
    harness = ReconcilerHarness(network_policy_peers=PEERS)
    harness.client.objects[kind, name] = {"kind": kind, "metadata": {"name": name, "uid": "x", "labels": {}}, "spec": {}}
    harness.client.put_job()
    harness.cache.put_job(harness.client.objects["FineTuneJob", "j"])
    assert await harness.reconcile() == REPORT_ERROR_SECONDS
    retry_after = await harness.reconcile()
    condition = harness.condition("PodsReady")
    assert condition["reason"] == "NameConflict"
    assert message in condition["message"]
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
    harness = await start_job(network_policy_peers=PEERS)
    harness.client.quota = {"Service": 1, "NetworkPolicy": 1}
    harness.make_ready("j-0", "j-1")
    await harness.reconcile()
    body = harness.client.objects["Pod", "j-1"]
    body["status"] = CRASHED
    harness.cache.put_pod(harness.client.bump_version(body))
    await harness.reconcile()
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1", "j-1-r"]
    assert harness.status()["reason"] == "Crashed"


async def test_job_resumes_although_its_own_objects_use_up_the_quota() -> None:
    harness = await start_job(network_policy_peers=PEERS)
    harness.client.quota = {"Service": 1, "NetworkPolicy": 1}
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
    harness = await start_job(network_policy_peers=PEERS)
    harness.client.quota = {"Service": 1, "NetworkPolicy": 1, "Pod": 2}
    harness.restart_operator(network_policy_peers=PEERS)
    harness.cache.put_job(harness.client.objects["FineTuneJob", "j"])  # the cache has none of its pods yet
    assert await harness.reconcile() is None
    harness.sync_cache()
    await harness.reconcile()
    assert harness.condition("PodsReady")["reason"] == "PodsStarting"


async def crash_pod_1(harness: ReconcilerHarness, seconds: float) -> list[str]:
    """Let the second pod of a running job crash after some time. Returns the names of the objects that are created then."""
    harness.make_ready("j-0", "j-1")
    await harness.reconcile()
    body = harness.client.objects["Pod", "j-1"]
    body["status"] = CRASHED
    harness.cache.put_pod(harness.client.bump_version(body))
    harness.client.log.clear()
    await reconcile_after(harness, seconds)
    return [entry for entry in harness.client.log if entry.startswith("create")]


async def test_deleted_service_is_created_again_with_the_next_pod() -> None:
    harness = await start_job()
    del harness.client.objects["Service", "finetune-trainers"]
    assert await crash_pod_1(harness, 11) == ["create Service finetune-trainers", "create Pod j-1-r"]


async def test_service_is_looked_up_once_for_many_pods() -> None:
    harness = await start_job()
    harness.client.fail_next["get_service"] = ApiError(500, "", "not to be asked for")
    assert await crash_pod_1(harness, 9) == ["create Pod j-1-r"]


async def test_pod_that_an_upgraded_operator_replaces_is_like_its_peer() -> None:
    harness = await start_job(trainer_image="trainer:1")
    annotations = harness.client.objects["Pod", "j-0"]["metadata"]["annotations"]
    annotations["finetune-operator.io/document"] = '{"the": "earlier document"}'
    harness.restart_operator(trainer_image="trainer:2")
    await crash_pod_1(harness, 0)
    replacement = harness.client.objects["Pod", "j-1-r"]
    assert replacement["spec"]["containers"][0]["image"] == "trainer:1"
    assert replacement["metadata"]["annotations"]["finetune-operator.io/document"] == '{"the": "earlier document"}'


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


def peers(harness: ReconcilerHarness) -> list[dict[str, Any]]:
    """Who may read the metrics of the job's pods, besides themselves."""
    rules = harness.client.objects["NetworkPolicy", "j"]["spec"]["ingress"]
    found: list[dict[str, Any]] = rules[1]["from"]
    return found


async def test_network_policy_is_created_before_the_pods() -> None:
    harness = await start_job(network_policy_peers=PEERS)
    assert peers(harness) == PEERS
    created = [entry for entry in harness.client.log if entry.startswith("create")]
    assert created.index("create NetworkPolicy j") < created.index("create Pod j-0")


@pytest.mark.parametrize(
    ("name", "before", "after", "expected"),
    [
        ("the settings have not changed", PEERS, PEERS, ["patch NetworkPolicy j"]),
        ("the peers have changed", PEERS, NEW_PEERS, ["patch NetworkPolicy j"]),
        ("an operator without policies created the pods", None, PEERS, ["create NetworkPolicy j"]),
        ("policies were turned off", PEERS, None, []),
    ],
)
async def test_restarted_operator_updates_the_policy_of_a_running_job_once(
    name: str, before: list[Any] | None, after: list[Any] | None, expected: list[str]
) -> None:
    harness = await start_job(network_policy_peers=before)
    harness.make_ready("j-0", "j-1")
    await harness.reconcile()
    harness.restart_operator(network_policy_peers=after)
    harness.sync_cache()
    harness.client.log.clear()
    for _ in range(3):
        await harness.reconcile()
    assert [entry for entry in harness.client.log if "NetworkPolicy" in entry] == expected
    assert peers(harness) == (after or before)
    assert harness.status()["phase"] == "Running"


@pytest.mark.parametrize("is_forbidden", [True, False], ids=["no permission", "the policy of someone else"])
async def test_running_job_goes_on_if_its_policy_cannot_be_created(is_forbidden: bool) -> None:
    harness = await start_job()
    harness.make_ready("j-0", "j-1")
    await harness.reconcile()
    harness.restart_operator(network_policy_peers=PEERS)
    harness.sync_cache()
    other = {"kind": "NetworkPolicy", "metadata": {"name": "j", "uid": "x"}, "spec": {}}
    if is_forbidden:
        harness.client.create_errors["NetworkPolicy"] = ApiError(403, "Forbidden", "networkpolicies is forbidden")
    else:
        harness.client.objects["NetworkPolicy", "j"] = other
    for _ in range(2):
        assert await harness.reconcile() is None
    assert harness.status()["phase"] == "Running"
    assert "reason" not in harness.status()
    assert harness.client.objects.get(("NetworkPolicy", "j")) == (None if is_forbidden else other)


async def test_resumed_job_gets_the_policy_of_the_current_settings() -> None:
    harness = await start_job(network_policy_peers=PEERS)
    harness.client.put_job(suspend=True)
    harness.sync_cache()
    await harness.reconcile()
    for name in harness.client.pod_names():
        del harness.client.objects["Pod", name]
    harness.restart_operator(network_policy_peers=NEW_PEERS)
    harness.client.put_job()
    harness.sync_cache()
    for _ in range(2):
        await harness.reconcile()
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1"]
    assert peers(harness) == NEW_PEERS
