"""A queued job in the controller: its Workload in the API server, from creation to its end."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
from tests.support.fake_kubernetes import CREATED, KEY, ReconcilerHarness

from finetune_operator.client.errors import ApiError
from finetune_operator.controller.workqueue import OutdatedError
from finetune_operator.reconcile import ReasonMessage

ASSIGNMENT = {"name": "main", "flavors": {"cpu": "h100", "memory": "h100"}}
TOLERATION = {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}
FLAVOR: dict[str, Any] = {
    "metadata": {"name": "h100", "uid": "h100-uid"},
    "spec": {"nodeLabels": {"gpu": "h100"}, "tolerations": [TOLERATION]},
}


def condition(condition_type: str, reason: str) -> dict[str, Any]:
    return {"type": condition_type, "status": "True", "reason": reason, "message": "", "lastTransitionTime": CREATED}


ADMITTED: dict[str, Any] = {
    "conditions": [condition("QuotaReserved", "QuotaReserved"), condition("Admitted", "Admitted")],
    "admission": {"clusterQueue": "gpus", "podSetAssignments": [ASSIGNMENT]},
}


def queued_job(**scheduling: Any) -> ReconcilerHarness:
    harness = ReconcilerHarness()
    body = harness.client.put_job()
    body["spec"]["scheduling"] = {"queueName": "team-queue"} | scheduling
    harness.cache.workload_errors[None] = None
    harness.sync_cache()
    return harness


def workload(harness: ReconcilerHarness) -> dict[str, Any]:
    [body] = [body for (kind, _), body in harness.client.objects.items() if kind == "Workload"]
    return body


def update(harness: ReconcilerHarness, **fields: Any) -> None:
    """Change the Workload, as Kueue would, and report it to the cache."""
    body = workload(harness)
    body |= fields
    harness.cache.put_workload(harness.client.bump_version(body))


async def test_creates_pods_with_the_flavor_after_admission() -> None:
    harness = queued_job()
    await harness.reconcile()
    assert workload(harness)["spec"]["queueName"] == "team-queue"
    assert harness.client.pod_names() == []
    assert harness.condition("QuotaReserved")["reason"] == "Queued"
    harness.client.objects["ResourceFlavor", "h100"] = FLAVOR
    update(harness, status=ADMITTED)
    await harness.reconcile()
    assert harness.client.pod_names() == ["j-0", "j-1"]
    assert harness.client.objects["Pod", "j-0"]["spec"]["nodeSelector"] == {"gpu": "h100"}


async def admitted_job() -> ReconcilerHarness:
    """A queued job whose two pods run on the flavor that admitted it."""
    harness = queued_job()
    await harness.reconcile()
    harness.client.objects["ResourceFlavor", "h100"] = FLAVOR
    update(harness, status=ADMITTED)
    await harness.reconcile()
    harness.make_ready("j-0", "j-1")
    await harness.reconcile()
    return harness


def restart_operator(harness: ReconcilerHarness) -> None:
    """A new process, whose watches have reported all objects."""
    harness.restart_operator()
    harness.cache.workload_errors[None] = None
    harness.sync_cache()
    harness.cache.put_workload(workload(harness))


def fail_pod(harness: ReconcilerHarness, name: str) -> None:
    """Fail the trainer of a pod."""
    terminated = {"exitCode": 1, "reason": "Error"}
    containers = [{"name": "trainer", "state": {"terminated": terminated}}]
    harness.client.bump_version(harness.client.objects["Pod", name])["status"] = {
        "phase": "Failed", "containerStatuses": containers,
    }  # fmt: skip
    harness.sync_cache()


def placed(harness: ReconcilerHarness, name: str) -> Any:
    """The node selector of a pod."""
    return harness.client.objects["Pod", name]["spec"].get("nodeSelector")


@pytest.mark.parametrize("is_restarted", [False, True], ids=["same operator", "restarted operator"])
async def test_replaces_a_failed_pod_on_the_same_flavor(is_restarted: bool) -> None:
    """The failed pod still exists, kept for its log, when its replacement is created in the same reconcile."""
    harness = await admitted_job()
    if is_restarted:
        restart_operator(harness)
    fail_pod(harness, "j-1")
    await harness.reconcile()
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1", "j-1-r"]
    assert placed(harness, "j-1-r") == {"gpu": "h100"}
    assert TOLERATION in harness.client.objects["Pod", "j-1-r"]["spec"]["tolerations"]


async def test_uses_the_flavor_of_the_newest_admission() -> None:
    harness = await admitted_job()
    update(harness, status=ADMITTED | {"conditions": [*ADMITTED["conditions"], condition("Evicted", "Preempted")]})
    for name in ("j-0", "j-1"):
        fail_pod(harness, name)  # stopped with a checkpoint; the objects are deleted a moment later
    await harness.reconcile()
    metadata = {"name": "a100", "uid": "a100-uid"}
    harness.client.objects["ResourceFlavor", "a100"] = {"metadata": metadata, "spec": {"nodeLabels": {"gpu": "a100"}}}
    admission = {"clusterQueue": "gpus", "podSetAssignments": [ASSIGNMENT | {"flavors": {"cpu": "a100"}}]}
    update(harness, status=ADMITTED | {"admission": admission})
    for name in ("j-0", "j-1"):
        harness.cache.remove_pod(KEY, harness.client.objects.pop(("Pod", name))["metadata"]["uid"])
    await harness.reconcile()
    assert [placed(harness, name) for name in harness.client.pod_names()] == [{"gpu": "a100"}] * 2


async def test_replaced_pod_asks_for_the_resources_that_were_admitted() -> None:
    """A profile may have other defaults by now, but the quota is that of the admission."""
    harness = queued_job()
    harness.client.objects["FineTuneJob", KEY.name]["spec"]["workers"]["resources"] = {"requests": {"cpu": 1}}
    harness.cache.put_job(harness.client.bump_version(harness.client.objects["FineTuneJob", KEY.name]))
    await harness.reconcile()
    harness.client.objects["ResourceFlavor", "h100"] = FLAVOR
    update(harness, status=ADMITTED)
    await harness.reconcile()
    harness.make_ready("j-0", "j-1")
    admitted = {"requests": {"cpu": 1}, "limits": {}}
    changed = harness.client.objects["FineTuneJob", KEY.name]
    changed["spec"]["workers"]["resources"] = {"requests": {"cpu": 8}, "limits": {"memory": "64Gi"}}
    restart_operator(harness)
    fail_pod(harness, "j-1")
    await harness.reconcile()
    assert harness.client.objects["Pod", "j-1-r"]["spec"]["containers"][0]["resources"] == admitted
    assert workload(harness)["spec"]["podSets"][0]["template"]["spec"]["containers"][0]["resources"] == admitted


async def test_reads_no_flavor_while_no_pod_is_missing() -> None:
    harness = await admitted_job()
    restart_operator(harness)
    del harness.client.objects["ResourceFlavor", "h100"]
    await harness.reconcile()
    assert harness.condition("PodsReady")["reason"] == "PodsReady"


async def test_creates_no_pod_without_a_placement_after_the_removal_of_kueue() -> None:
    """The pods of an operator that saw the admission keep their flavor; a restarted one cannot know it, and waits."""
    harness = await admitted_job()
    removed = ReasonMessage("KueueNotInstalled", "scheduling.queueName: Kueue is not installed.")
    harness.client.objects = {key: body for key, body in harness.client.objects.items() if key[0] != "Workload"}
    harness.restart_operator()
    harness.cache.workload_errors[None] = removed
    harness.sync_cache()
    fail_pod(harness, "j-1")
    await harness.reconcile()
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1"]
    assert harness.condition("PodsReady")["reason"] == "KueueNotInstalled"


def dispatched_job(*, count: int = 2, cpu: str = "1000m", owners: Sequence[dict[str, Any]] = ()) -> ReconcilerHarness:
    """A job that names a Workload which exists already and is admitted, as a copy of MultiKueue does."""
    harness = queued_job()
    body = harness.client.bump_version(harness.client.objects["FineTuneJob", KEY.name])
    body["metadata"]["labels"] = {"kueue.x-k8s.io/prebuilt-workload-name": "prebuilt"}
    body["spec"]["workers"]["resources"] = {"requests": {"cpu": 1}, "limits": {"memory": "2Gi"}}
    harness.sync_cache()
    harness.client.objects["ResourceFlavor", "h100"] = FLAVOR
    metadata = {"name": "prebuilt", "namespace": KEY.namespace, "uid": "w", "ownerReferences": list(owners)}
    resources = {"requests": {"cpu": cpu, "memory": "2048Mi"}, "limits": {"memory": "2Gi"}}
    template = {"spec": {"containers": [{"name": "trainer", "resources": resources}]}}
    spec = {"active": True, "podSets": [{"name": "main", "count": count, "template": template}]}
    prebuilt = {"metadata": metadata, "spec": spec, "status": ADMITTED}
    harness.client.objects["Workload", "prebuilt"] = harness.client.bump_version(prebuilt)
    return harness


@pytest.mark.parametrize(
    ("prebuilt", "cause"),
    [
        ({"owners": [{"uid": "x", "kind": "Job", "name": "other", "controller": True}]}, "belongs to Job other"),
        ({"owners": [{"uid": "x", "kind": "Pod", "name": "member"}]}, "belongs to Pod member"),
        ({"count": 1}, "is for 1 pods, the job for 2"),
        ({"cpu": "500m"}, "requests other resources"),
    ],
    ids=["another controller", "a group of pods", "fewer pods", "less CPU"],
)
async def test_leaves_a_workload_alone_that_is_not_for_this_job(prebuilt: dict[str, Any], cause: str) -> None:
    harness = dispatched_job(**prebuilt)
    before = copy.deepcopy(workload(harness))
    delays = [await harness.reconcile() for _ in range(8)]
    assert workload(harness) == before
    assert harness.client.pod_names() == []
    assert (delays[-1] or 0) > 30, "it asks less and less often"
    condition = harness.condition("QuotaReserved")
    assert (condition["status"], condition["reason"]) == ("False", "WorkloadMismatch")
    assert cause in condition["message"]
    before["metadata"]["ownerReferences"] = []
    before["spec"] = dispatched_job().client.objects["Workload", "prebuilt"]["spec"]
    harness.client.objects["Workload", "prebuilt"] = harness.client.bump_version(before)
    await harness.reconcile()
    await harness.reconcile()
    assert harness.client.pod_names() == ["j-0", "j-1"]


async def test_runs_at_once_in_the_workload_that_multikueue_created_and_kueue_admitted() -> None:
    harness = dispatched_job()
    assert await harness.reconcile() == 0, "no event follows the response"
    await harness.reconcile()
    assert harness.client.pod_names() == ["j-0", "j-1"]


async def test_names_a_flavor_that_cannot_be_read() -> None:
    harness = queued_job()
    await harness.reconcile()
    update(harness, status=ADMITTED)
    assert await harness.reconcile() == 0, "the Workload has changed"
    assert await harness.reconcile() == 10
    assert harness.condition("PodsReady")["reason"] == "ResourceFlavorNotFound"
    assert harness.client.pod_names() == []


async def test_sets_the_priority_of_a_class() -> None:
    harness = queued_job(workloadPriorityClass="urgent")
    delay = await harness.reconcile()
    assert delay is not None
    await harness.reconcile()
    assert harness.condition("QuotaReserved")["reason"] == "PriorityClassNotFound"
    assert harness.condition("QuotaReserved")["message"] == (
        "scheduling.workloadPriorityClass: the WorkloadPriorityClass 'urgent' does not exist: create it or correct the name."
    )
    harness.client.objects["WorkloadPriorityClass", "urgent"] = {"metadata": {"name": "urgent"}, "value": 1000}
    await harness.reconcile()
    assert workload(harness)["spec"]["priority"] == 1000


async def test_retries_a_rejected_workload_with_growing_delays() -> None:
    harness = queued_job()
    harness.client.create_errors["Workload"] = ApiError(500, "InternalError", "failed calling webhook")
    delays = [await harness.reconcile() for _ in range(12)]
    assert all(delay is not None and 2 <= delay <= 300 for delay in delays)
    assert (delays[-1] or 0) > 100
    assert harness.condition("QuotaReserved")["message"] == "The Workload was rejected: failed calling webhook"
    del harness.client.create_errors["Workload"]
    await harness.reconcile()
    assert workload(harness)["metadata"]["name"].startswith("finetunejob-j-")


async def test_suspension_deactivates_and_resumption_activates() -> None:
    harness = queued_job()
    await harness.reconcile()
    for suspend in (True, False):
        body = harness.client.put_job(suspend=suspend)
        body["metadata"]["generation"] = 5 + int(suspend)
        body["spec"]["scheduling"] = {"queueName": "team-queue"}
        harness.sync_cache()
        await harness.reconcile()
        annotations = workload(harness)["metadata"]["annotations"]
        assert workload(harness)["spec"]["active"] is not suspend
        assert annotations.get("finetune-operator.io/suspended") == ("true" if suspend else None)


async def test_gives_quota_back_and_keeps_the_other_conditions() -> None:
    harness = queued_job()
    await harness.reconcile()
    update(harness, status=ADMITTED | {"conditions": [*ADMITTED["conditions"], condition("Evicted", "Preempted")]})
    await harness.reconcile()
    status = workload(harness)["status"]
    assert "admission" not in status
    assert {(item["type"], item["status"]) for item in status["conditions"]} == {
        ("QuotaReserved", "False"), ("Admitted", "False"), ("Evicted", "True"), ("Requeued", "True"),
    }  # fmt: skip


async def test_conflicting_write_is_repeated_after_the_watch_has_reported_the_change() -> None:
    harness = queued_job()
    await harness.reconcile()
    stale = workload(harness)
    harness.client.bump_version(stale)
    body = harness.client.put_job(suspend=False, backoffLimit=1)
    body["spec"]["workers"]["nodes"] = 4
    body["spec"]["training"]["batchSize"] = 32
    body["spec"]["scheduling"] = {"queueName": "team-queue"}
    harness.sync_cache()
    with pytest.raises(OutdatedError):
        await harness.reconcile()
    harness.cache.put_workload(stale)
    await harness.reconcile()
    assert workload(harness)["spec"]["podSets"][0]["count"] == 4


async def test_pod_group_follows_the_number_of_nodes() -> None:
    harness = ReconcilerHarness()
    harness.client.put_job()["spec"]["scheduling"] = {"gang": "Native"}
    harness.sync_cache()
    await harness.reconcile()
    assert harness.client.objects["PodGroup", "j"]["spec"]["schedulingPolicy"] == {"gang": {"minCount": 2}}
    for name in harness.client.pod_names():  # the number of nodes changes while the job is suspended, which deletes its pods
        harness.cache.remove_pod(KEY, harness.client.objects.pop(("Pod", name))["metadata"]["uid"])
    body = harness.client.put_job()
    body["spec"] |= {"scheduling": {"gang": "Native"}, "workers": {"nodes": 4}, "training": {"batchSize": 32}}
    harness.sync_cache()
    await harness.reconcile()
    assert harness.client.objects["PodGroup", "j"]["spec"]["schedulingPolicy"] == {"gang": {"minCount": 4}}
    assert len(harness.client.pod_names()) == 4


async def gang_job() -> ReconcilerHarness:
    """A job with a gang whose two pods run."""
    harness = ReconcilerHarness()
    harness.client.put_job()["spec"]["scheduling"] = {"gang": "Native"}
    harness.sync_cache()
    await harness.reconcile()
    harness.make_ready("j-0", "j-1")
    return harness


def put_gang(harness: ReconcilerHarness, priority_class: str, **run_policy: Any) -> None:
    """Edit the job: the priority class of its pods and of their PodGroup."""
    body = harness.client.put_job(**run_policy)
    body["spec"] |= {"scheduling": {"gang": "Native"}}
    body["spec"]["workers"]["template"] = {"priorityClassName": priority_class}
    harness.sync_cache()


async def test_pod_group_is_created_again_for_another_priority_class() -> None:
    """Kubernetes allows no change of the priority class. It keeps the deleted PodGroup until the last pod is gone."""
    harness = await gang_job()
    first = harness.client.objects["PodGroup", "j"]
    put_gang(harness, "urgent", suspend=True)
    await harness.reconcile()
    for name in harness.client.pod_names():
        del harness.client.objects["Pod", name]
    harness.sync_cache()
    await harness.reconcile()
    put_gang(harness, "urgent")
    first["metadata"]["deletionTimestamp"] = CREATED
    with pytest.raises(OutdatedError):
        await harness.reconcile()
    assert harness.client.pod_names() == []
    del first["metadata"]["deletionTimestamp"]
    with pytest.raises(OutdatedError):
        await harness.reconcile()
    assert (harness.client.pod_names(), harness.client.log[-1]) == ([], "delete PodGroup j")
    await harness.reconcile()
    second = harness.client.objects["PodGroup", "j"]
    assert second["spec"]["priorityClassName"] == "urgent"
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    assert harness.client.pod_names() == ["j-0", "j-1"]


async def test_pods_that_run_keep_their_pod_group() -> None:
    """The default priority class of a profile has changed: the replacement of a pod joins the group of its peers."""
    harness = await gang_job()
    before = harness.client.objects["PodGroup", "j"]["metadata"]
    harness.client.objects["PodGroup", "j"]["metadata"]["annotations"] = {"finetune-operator.io/spec-hash": "other"}
    fail_pod(harness, "j-1")
    await harness.reconcile()
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1", "j-1-r"]
    assert harness.client.objects["PodGroup", "j"]["metadata"] is before


async def test_label_change_moves_the_job_to_another_queue() -> None:
    harness = ReconcilerHarness()
    body = harness.client.put_job()
    body["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "a"}
    harness.cache.workload_errors[None] = None
    harness.sync_cache()
    await harness.reconcile()
    assert workload(harness)["spec"]["queueName"] == "a"
    body = harness.client.objects["FineTuneJob", "j"]
    body["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "b"}
    harness.client.bump_version(body)
    harness.sync_cache()
    await harness.reconcile()
    assert workload(harness)["spec"]["queueName"] == "b"
    assert harness.cache.workload(KEY, "job-uid") is not None
