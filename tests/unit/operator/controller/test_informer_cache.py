"""The informer cache."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.fake_kubernetes import KEY, job_body, pod_body

from finetune_operator.client.types import ListSnapshot
from finetune_operator.controller.informer_cache import MAX_DELETED_UIDS, InformerCache, parse_status


def test_ignores_older_resource_version() -> None:
    cache = InformerCache()
    cache.put_job(job_body(10))
    assert cache.put_job(job_body(9)).resource_version == 10
    cache.put_pod(pod_body(10, phase="Running"))
    assert not cache.put_pod(pod_body(9, phase="Pending"))
    assert cache.pods(KEY)[0].phase == "Running"


def test_validates_spec_once_per_generation() -> None:
    cache = InformerCache()
    first = cache.put_job(job_body(1)).document
    assert cache.put_job(job_body(2)).document is first
    assert cache.put_job(job_body(3, generation=2)).document is not first
    assert cache.put_job(job_body(4, generation=2, uid="another")).uid == "another"


def test_validation_errors_name_the_field() -> None:
    invalid = InformerCache().put_job(job_body(1, workers={"nodez": 2}))
    assert invalid.document is None
    assert invalid.validation_errors == ("spec.workers.nodez: no such field; remove it or correct its spelling",)


def test_reports_only_relevant_pod_changes() -> None:
    cache = InformerCache()
    assert cache.put_pod(pod_body(1, phase="Pending"))
    assert not cache.put_pod(pod_body(2, phase="Pending"))
    assert cache.put_pod(pod_body(3, phase="Running"))


def test_deleted_pod_does_not_reappear() -> None:
    cache = InformerCache()
    cache.put_pod(pod_body(1))
    cache.remove_pod(KEY, "pod-uid")
    assert not cache.put_pod(pod_body(2))
    assert cache.pods(KEY) == ()
    for number in range(MAX_DELETED_UIDS):
        cache.remove_pod(KEY, f"uid-{number}")
    assert cache.put_pod(pod_body(2)), "only a limited number of deleted UIDs is kept"


def test_removes_job_only_by_its_uid() -> None:
    cache = InformerCache()
    cache.put_job(job_body(1))
    cache.remove_job(KEY, "an earlier one")
    assert KEY in cache.jobs
    cache.remove_job(KEY, "job-uid")
    assert KEY not in cache.jobs


JOB_LISTED, POD_LISTED = ListSnapshot(20, frozenset({"job-uid"})), ListSnapshot(20, frozenset({"pod-uid"}))
EMPTY_LIST, OLD_EMPTY_LIST = ListSnapshot(20, frozenset()), ListSnapshot(5, frozenset())


@pytest.mark.parametrize(
    ("jobs", "pods", "namespace", "jobs_left", "pods_left"),
    [
        pytest.param(JOB_LISTED, POD_LISTED, None, 1, 1, id="listed"),
        pytest.param(EMPTY_LIST, EMPTY_LIST, None, 0, 0, id="absent from the cluster"),
        pytest.param(EMPTY_LIST, EMPTY_LIST, "team", 0, 0, id="absent from its namespace"),
        pytest.param(EMPTY_LIST, EMPTY_LIST, "elsewhere", 1, 1, id="absent from another namespace"),
        pytest.param(OLD_EMPTY_LIST, OLD_EMPTY_LIST, None, 1, 1, id="list older than the cached objects"),
    ],
)
def test_removes_objects_absent_from_fresh_list(
    jobs: ListSnapshot, pods: ListSnapshot, namespace: str | None, jobs_left: int, pods_left: int
) -> None:
    cache = InformerCache()
    cache.put_job(job_body(10))
    cache.put_pod(pod_body(10))
    changed = cache.remove_deleted(jobs, pods, namespace)
    assert (len(cache.jobs), len(cache.pods(KEY))) == (jobs_left, pods_left)
    assert changed == (set() if jobs_left else {KEY})


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        pytest.param(None, "Pending", id="absent"),
        pytest.param(
            {"phase": "Running", "invented": {"later": 1}, "restarts": {"alsoLater": 2}}, "Running", id="unknown fields"
        ),
        pytest.param({"phase": "Nonsense"}, "Pending", id="unknown phase"),
    ],
)
def test_parses_status_of_other_operator_version(status: dict[str, Any] | None, phase: str) -> None:
    assert parse_status(status).phase == phase
