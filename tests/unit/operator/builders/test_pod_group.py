"""scheduling.gang: PodGroups of three schedulers, and the pods that join them.

tests/integration/scheduling/test_gangs.py compares them with the published schemas.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.simulated_cluster import document

from finetune_operator import builders
from finetune_operator.api import FineTuneJob
from finetune_operator.settings import Settings


def job(scheduling: dict[str, Any], **template: Any) -> FineTuneJob:
    body = document(3)
    body["spec"] |= {"scheduling": scheduling}
    body["spec"]["workers"]["template"] = template
    return FineTuneJob.model_validate(body)


GANGS = [
    pytest.param(
        {"gang": "Native"},
        "scheduling.k8s.io/v1beta1",
        {"schedulingPolicy": {"gang": {"minCount": 3}}, "disruptionMode": {"all": {}}, "priorityClassName": "high"},
        {"schedulingGroup": {"podGroupName": "j"}},
        id="native",
    ),
    pytest.param(
        {"gang": "Coscheduling"},
        "scheduling.x-k8s.io/v1alpha1",
        {"minMember": 3},
        {"schedulerName": "scheduler-plugins-scheduler"},
        id="coscheduling",
    ),
    pytest.param(
        {"gang": "Volcano"},
        "scheduling.volcano.sh/v1beta1",
        {"minMember": 3, "priorityClassName": "high"},
        {"schedulerName": "volcano"},
        id="volcano",
    ),
    pytest.param(
        {"gang": "Volcano", "volcanoQueue": "research"},
        "scheduling.volcano.sh/v1beta1",
        {"minMember": 3, "priorityClassName": "high", "queue": "research"},
        {"schedulerName": "volcano"},
        id="volcano-queue",
    ),
]


@pytest.mark.parametrize(("scheduling", "api_version", "spec", "pod_spec"), GANGS)
def test_pod_group(scheduling: dict[str, Any], api_version: str, spec: dict[str, Any], pod_spec: dict[str, Any]) -> None:
    queued = job(scheduling, priorityClassName="high")
    group = builders.build_pod_group(queued)
    assert group is not None
    assert (group["apiVersion"], group["kind"], group["metadata"]["name"]) == (api_version, "PodGroup", "j")
    assert group["metadata"]["ownerReferences"][0]["uid"] == "job-uid"
    assert group["spec"] == spec
    pod = builders.build_pod(queued, 1, Settings())
    assert {key: pod["spec"].get(key) for key in ("schedulingGroup", "schedulerName") if key in pod["spec"]} == pod_spec


@pytest.mark.parametrize(
    ("gang", "where", "key"),
    [("Coscheduling", "labels", "scheduling.x-k8s.io/pod-group"), ("Volcano", "annotations", "scheduling.k8s.io/group-name")],
)
def test_pod_names_its_group(gang: str, where: str, key: str) -> None:
    assert builders.build_pod(job({"gang": gang}), 0, Settings())["metadata"][where][key] == "j"


def test_job_without_gang_has_no_pod_group() -> None:
    plain = job({})
    pod = builders.build_pod(plain, 0, Settings())
    assert builders.build_pod_group(plain) is None
    assert "schedulerName" not in pod["spec"]
    assert "schedulingGroup" not in pod["spec"]


def test_render_lists_pod_group_before_pods() -> None:
    kinds = [item["kind"] for item in builders.render(job({"gang": "Native", "queueName": "team"}))]
    assert kinds == ["Workload", "Service", "PodGroup", "Pod", "Pod", "Pod"]
