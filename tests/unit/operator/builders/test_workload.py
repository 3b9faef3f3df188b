"""The Kueue Workload of a job, and where its admission places the pods."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.simulated_cluster import document

from finetune_operator import builders
from finetune_operator.api import FineTuneJob
from finetune_operator.builders import Placement
from finetune_operator.builders.quantity import parse_quantity
from finetune_operator.settings import Settings

SETTINGS = Settings(trainer_image="trainer:1")


def job(
    labels: dict[str, str] | None = None, uid: str = "job-uid", name: str = "j", nodes: int = 2, **spec: Any
) -> FineTuneJob:
    body = document(nodes)
    body["metadata"] |= {"labels": labels or {}, "uid": uid, "name": name}
    body["spec"] |= {"scheduling": {"queueName": "team-queue"}} | spec
    return FineTuneJob.model_validate(body)


def test_asks_for_all_pods_at_once() -> None:
    workload = builders.build_workload(job(), SETTINGS, None)
    assert (workload["apiVersion"], workload["kind"]) == ("kueue.x-k8s.io/v1beta2", "Workload")
    assert workload["metadata"]["ownerReferences"][0]["uid"] == "job-uid"
    assert workload["metadata"]["labels"]["kueue.x-k8s.io/job-uid"] == "job-uid"
    assert workload["spec"]["queueName"] == "team-queue"
    [pod_set] = workload["spec"]["podSets"]
    assert (pod_set["name"], pod_set["count"]) == ("main", 2)
    assert pod_set["template"]["spec"]["containers"][0]["image"] == "trainer:1"
    assert "hostname" not in pod_set["template"]["spec"]
    assert "finetune-operator.io/node-rank" not in pod_set["template"]["metadata"]["labels"]
    assert "priorityClassRef" not in workload["spec"]


def test_names_its_priority_class() -> None:
    priority = builders.PriorityClass("kueue.x-k8s.io", "WorkloadPriorityClass", "urgent", 1000)
    spec = builders.build_workload_spec(job(), SETTINGS, priority)
    assert spec["priorityClassRef"] == {"group": "kueue.x-k8s.io", "kind": "WorkloadPriorityClass", "name": "urgent"}
    assert spec["priority"] == 1000


@pytest.mark.parametrize(
    ("name", "labels", "scheduling", "queue", "priority"),
    [
        ("fields", {}, {"queueName": "a", "workloadPriorityClass": "high"}, "a", "high"),
        ("labels", {"kueue.x-k8s.io/queue-name": "b", "kueue.x-k8s.io/priority-class": "low"}, {}, "b", "low"),
        ("fields before labels", {"kueue.x-k8s.io/queue-name": "b"}, {"queueName": "a"}, "a", None),
        ("neither", {"team": "a"}, {}, None, None),
    ],
)
def test_queue_of_a_job(
    name: str, labels: dict[str, str], scheduling: dict[str, Any], queue: str | None, priority: str | None
) -> None:
    queued = job(labels, scheduling=scheduling)
    assert (queued.queue_name, queued.workload_priority_class) == (queue, priority)


def test_name_is_unique_for_each_job_and_fits_a_label() -> None:
    names = {builders.workload_name(job(name=name, uid=uid)) for name in ("j", "k") for uid in ("1", "2")}
    assert len(names) == 4
    longest = builders.workload_name(job(name="a" * 50))
    assert len(longest) == 63
    assert builders.workload_name(job(name="a" * 49 + "b")) != longest


def test_multikueue_names_the_workload_of_its_copy() -> None:
    copied = job({"kueue.x-k8s.io/prebuilt-workload-name": "of-the-manager"})
    assert builders.workload_name(copied) == "of-the-manager"
    patch = builders.adoption_patch(copied, SETTINGS)
    assert patch["metadata"]["ownerReferences"][0]["uid"] == "job-uid"
    assert patch["metadata"]["labels"]["finetune-operator.io/job"] == "j"
    assert set(patch) == {"metadata"}


@pytest.mark.parametrize(
    ("name", "quantity", "other", "is_equal"),
    [
        ("number and text", 1, "1", True),
        ("thousandths", "500m", "0.5", True),
        ("binary", "1Gi", "1024Mi", True),
        ("decimal", "1G", "1000M", True),
        ("exponent", "2e3", "2k", True),
        ("exa is no exponent", "1E", "1000P", True),
        ("binary and decimal", "1Gi", "1G", False),
        ("millions and thousandths", "1M", "1m", False),
        ("no quantity", "many", "many", True),
        ("unknown suffix", "1x", "1", False),
    ],
)
def test_quantities_are_compared_by_amount(name: str, quantity: int | str, other: int | str, is_equal: bool) -> None:
    assert (parse_quantity(quantity) == parse_quantity(other)) is is_equal


@pytest.mark.parametrize(
    ("name", "changed", "is_equal"),
    [
        ("same", job(), True),
        ("policy of the run", job(runPolicy={"backoffLimit": 9}), True),
        ("nodes", job(nodes=4), False),
        ("queue", job(scheduling={"queueName": "other"}), False),
        ("priority", job(scheduling={"queueName": "team-queue", "workloadPriorityClass": "high"}), False),
        ("resources", job(workers={"nodes": 2, "resources": {"requests": {"cpu": 8}}}), False),
    ],
)
def test_hash_changes_with_the_workload(name: str, changed: FineTuneJob, is_equal: bool) -> None:
    assert (builders.workload_hash(changed, SETTINGS) == builders.workload_hash(job(), SETTINGS)) is is_equal


def test_placement_of_flavors_and_admission_checks() -> None:
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists"}
    flavors: list[dict[str, Any]] = [
        {"spec": {"nodeLabels": {"gpu": "h100"}, "tolerations": [toleration]}},
        {"spec": {"nodeLabels": {"memory": "large"}, "tolerations": [toleration]}},
        {"spec": {}},
    ]
    updates = [{"nodeSelector": {"zone": "a"}, "labels": {"l": "1"}, "annotations": {"a": "2"}, "tolerations": [toleration]}]
    placement = builders.merge_placement(flavors, updates)
    assert placement == Placement({"gpu": "h100", "memory": "large", "zone": "a"}, [toleration], {"l": "1"}, {"a": "2"})
    pod = builders.build_pod(job(workers={"nodes": 2, "template": {"nodeSelector": {"own": "1"}}}), 0, SETTINGS, placement)
    assert pod["spec"]["nodeSelector"] == {"own": "1", "gpu": "h100", "memory": "large", "zone": "a"}
    assert pod["spec"]["tolerations"][0] == toleration
    assert pod["metadata"]["labels"]["l"] == "1"
    assert pod["metadata"]["annotations"]["a"] == "2"
    assert pod["metadata"]["labels"]["finetune-operator.io/job"] == "j"
