"""What the watches have shown."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.simulated_cluster import document

from finetune_operator.controller.informer_cache import REMEMBERED_DELETIONS, InformerCache, JobKey, ListSnapshot, read_status

KEY = JobKey("team", "j")


def job(version: int, generation: int = 1, uid: str = "job-uid", **spec: Any) -> dict[str, Any]:
    body = document()
    body["metadata"] |= {
        "uid": uid,
        "resourceVersion": str(version),
        "generation": generation,
        "creationTimestamp": "2026-01-01T12:00:00Z",
    }
    body["spec"] |= spec
    return body


def pod(version: int, uid: str = "pod-uid", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "j-0",
            "namespace": "team",
            "uid": uid,
            "resourceVersion": str(version),
            "creationTimestamp": "2026-01-01T12:00:00Z",
            "labels": {"finetune-operator.io/job": "j", "finetune-operator.io/node-rank": "0"},
        },
        "status": status,
    }


def test_an_older_version_never_replaces_a_newer_one() -> None:
    cache = InformerCache()
    cache.put_job(job(10))
    assert cache.put_job(job(9)).version == 10
    cache.put_pod(pod(10, phase="Running"))
    assert not cache.put_pod(pod(9, phase="Pending"))
    assert cache.pods(KEY)[0].phase == "Running"


def test_the_document_is_read_once_a_generation() -> None:
    cache = InformerCache()
    first = cache.put_job(job(1)).document
    assert cache.put_job(job(2)).document is first
    assert cache.put_job(job(3, generation=2)).document is not first
    assert cache.put_job(job(4, generation=2, uid="another")).uid == "another"


def test_a_document_with_mistakes_says_where_they_are() -> None:
    broken = InformerCache().put_job(job(1, workers={"nodez": 2}))
    assert broken.document is None
    assert broken.validation_errors == ("spec.workers.nodez: no such field; remove it or correct its spelling",)


def test_only_what_matters_of_a_pod_is_news() -> None:
    cache = InformerCache()
    assert cache.put_pod(pod(1, phase="Pending"))
    assert not cache.put_pod(pod(2, phase="Pending"))
    assert cache.put_pod(pod(3, phase="Running"))


def test_a_deleted_pod_does_not_come_back() -> None:
    cache = InformerCache()
    cache.put_pod(pod(1))
    cache.drop_pod(KEY, "pod-uid")
    assert not cache.put_pod(pod(2))
    assert cache.pods(KEY) == ()
    for number in range(REMEMBERED_DELETIONS):
        cache.drop_pod(KEY, f"uid-{number}")
    assert cache.put_pod(pod(2)), "its memory is bounded"


def test_only_the_named_job_is_dropped() -> None:
    cache = InformerCache()
    cache.put_job(job(1))
    cache.drop_job(KEY, "an earlier one")
    assert KEY in cache.jobs
    cache.drop_job(KEY, "job-uid")
    assert KEY not in cache.jobs


@pytest.mark.parametrize(
    ("jobs", "pods", "namespace", "jobs_left", "pods_left"),
    [
        (ListSnapshot(20, frozenset({"job-uid"})), ListSnapshot(20, frozenset({"pod-uid"})), None, 1, 1),
        (ListSnapshot(20, frozenset()), ListSnapshot(20, frozenset()), None, 0, 0),
        (ListSnapshot(20, frozenset()), ListSnapshot(20, frozenset()), "team", 0, 0),
        (ListSnapshot(20, frozenset()), ListSnapshot(20, frozenset()), "elsewhere", 1, 1),
        (ListSnapshot(5, frozenset()), ListSnapshot(5, frozenset()), None, 1, 1),  # the list is older than what is known
    ],
)
def test_what_a_fresh_list_lacks_is_forgotten(
    jobs: ListSnapshot, pods: ListSnapshot, namespace: str | None, jobs_left: int, pods_left: int
) -> None:
    cache = InformerCache()
    cache.put_job(job(10))
    cache.put_pod(pod(10))
    changed = cache.keep_only(jobs, pods, namespace)
    assert (len(cache.jobs), len(cache.pods(KEY))) == (jobs_left, pods_left)
    assert changed == (set() if jobs_left else {KEY})


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        (None, "Pending"),
        ({"phase": "Running", "invented": {"later": 1}, "restarts": {"alsoLater": 2}}, "Running"),
        ({"phase": "Nonsense"}, "Pending"),
    ],
)
def test_a_status_of_another_version_is_read(status: dict[str, Any] | None, phase: str) -> None:
    assert read_status(status).phase == phase
