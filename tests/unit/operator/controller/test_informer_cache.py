"""The informer cache."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.fake_kubernetes import KEY, job_body, pod_body

from finetune_operator.api import FineTuneJob
from finetune_operator.client.types import ListSnapshot
from finetune_operator.controller.informer_cache import MAX_REMEMBERED_UIDS, InformerCache, parse_status
from finetune_operator.profiles import Profiles


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


def test_validates_no_document_before_it_is_needed() -> None:
    validated = []

    class RecordingProfiles(Profiles):
        def apply(self, job: FineTuneJob) -> FineTuneJob:
            validated.append(job.metadata.generation)
            return super().apply(job)

    cache = InformerCache(RecordingProfiles())
    for number in range(3):
        cache.put_job(job_body(1 + number) | {"status": {"phase": "Succeeded"}})
    queued = cache.put_job(job_body(9, generation=2, scheduling={"queueName": "team"}))
    assert queued.source.names_queue
    assert validated == []
    assert queued.document is not None
    assert (queued.validation_errors, validated) == ((), [2])


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
    for number in range(MAX_REMEMBERED_UIDS):
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
    assert (len(cache.jobs), cache.active_jobs, len(cache.pods(KEY))) == (jobs_left, jobs_left, pods_left)
    assert changed == (set() if jobs_left else {KEY})


CONDITION = {
    "type": "Later",
    "status": "True",
    "reason": "R",
    "message": "m",
    "lastTransitionTime": "2026-01-01T12:00:00.123456789Z",
    "severity": "low",
}


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        pytest.param(None, "Pending", id="absent"),
        pytest.param(
            {"phase": "Running", "invented": {"later": 1}, "restarts": {"alsoLater": 2}}, "Running", id="unknown fields"
        ),
        pytest.param({"phase": "Running", "conditions": [CONDITION]}, "Running", id="unknown condition"),
    ],
)
def test_parses_status_of_other_operator_version(status: dict[str, Any] | None, phase: str) -> None:
    parsed, error = parse_status(status)
    assert parsed is not None
    assert (parsed.phase, error) == (phase, "")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        pytest.param({"phase": "Paused"}, "status.phase: 'Paused' is not one of", id="unknown phase"),
        pytest.param({"restarts": {"total": "3"}}, "status.restarts.total: '3' is invalid", id="another type"),
        pytest.param({"completionTime": "yesterday"}, "status.completionTime: Invalid isoformat", id="no timestamp"),
        pytest.param(
            {"conditions": [{"type": "Later"}]}, "status.conditions[0].status: is required", id="incomplete condition"
        ),
    ],
)
def test_explains_status_that_cannot_be_read(status: dict[str, Any], error: str) -> None:
    cache = InformerCache()
    job = cache.put_job(job_body(1) | {"status": status})
    assert job.status is None
    assert error in job.status_error
    assert not job.is_active
    assert cache.active_jobs == 0


@pytest.mark.parametrize(
    ("status", "active"),
    [
        ({}, 1),
        ({"phase": "Running"}, 1),
        ({"phase": "Suspended"}, 1),
        ({"phase": "Failed"}, 0),
        ({"phase": "Running", "completionTime": "2026-01-01T12:00:00Z"}, 0),
    ],
    ids=["new", "running", "suspended", "failed", "completion time alone"],
)
def test_counts_active_jobs(status: dict[str, Any], active: int) -> None:
    cache = InformerCache()
    cache.put_job(job_body(1))
    assert cache.active_jobs == 1
    cache.put_job(job_body(2) | {"status": status})
    assert cache.active_jobs == active
    cache.remove_job(KEY, "job-uid")
    assert cache.active_jobs == 0


def test_pod_of_another_controller_is_ignored_with_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    cache = InformerCache()
    for version in (1, 2):
        foreign = pod_body(version)
        foreign["metadata"]["labels"]["finetune-operator.io/node-rank"] = "first"
        assert not cache.put_pod(foreign)
    assert cache.pods(KEY) == ()
    [line] = caplog.messages
    assert "pod team/j-0 is ignored: its label finetune-operator.io/node-rank is 'first'" in line


@pytest.mark.parametrize(
    ("jobs", "pods", "is_complete"),
    [
        pytest.param(JOB_LISTED, POD_LISTED, True, id="all stored"),
        pytest.param(EMPTY_LIST, EMPTY_LIST, True, id="deleted since"),
        pytest.param(ListSnapshot(20, frozenset({"another"})), POD_LISTED, False, id="a job is not stored"),
        pytest.param(JOB_LISTED, ListSnapshot(20, frozenset({"another"})), False, id="a pod is not stored"),
        pytest.param(JOB_LISTED, ListSnapshot(20, frozenset({"foreign"})), True, id="a foreign pod"),
        pytest.param(JOB_LISTED, ListSnapshot(20, frozenset({"deleted"})), True, id="a deleted pod"),
    ],
)
def test_contains_listed_objects(jobs: ListSnapshot, pods: ListSnapshot, is_complete: bool) -> None:
    cache = InformerCache()
    cache.put_job(job_body(10))
    cache.put_pod(pod_body(10))
    foreign = pod_body(10, uid="foreign")
    del foreign["metadata"]["labels"]["finetune-operator.io/node-rank"]
    cache.put_pod(foreign)
    cache.put_pod(pod_body(10, uid="deleted"))
    cache.remove_pod(KEY, "deleted")
    assert cache.contains(jobs, pods) == is_complete


def fields(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all fields and list items in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield (*path, key)
        yield from fields(item, (*path, key))


FULL_JOB: dict[str, Any] = job_body(1) | {
    "status": {
        "phase": "Running",
        "startTime": "2026-01-01T12:00:00+01:00",
        "conditions": [CONDITION],
        "restarts": {"total": 1, "byReason": {"Crashed": 1}, "lastTime": "2026-01-01T12:00:00"},
        "progress": {"step": 3, "totalSteps": 9},
        "workers": {"ready": 1},
    }
}


@pytest.mark.parametrize("replacement", [None, "text", 7, [], {}, "absent"], ids=repr)
def test_job_with_any_field_missing_or_of_another_type_can_be_stored(replacement: Any) -> None:
    server_set = {
        ("metadata",),
        *(("metadata", name) for name in ("name", "namespace", "uid", "generation", "resourceVersion", "creationTimestamp")),
    }
    cache = InformerCache()
    for version, path in enumerate(fields(FULL_JOB), start=2):
        if path in server_set or (path[0] == "spec" and len(path) > 2):
            continue
        body = copy.deepcopy(FULL_JOB)
        body["metadata"] |= {"resourceVersion": str(version), "generation": version if path[0] == "spec" else 1}
        target: Any = body
        for key in path[:-1]:
            target = target[key]
        if replacement == "absent":
            del target[path[-1]]
        else:
            target[path[-1]] = replacement
        job = cache.put_job(body)
        assert job.resource_version == version
        assert (job.status is None) == bool(job.status_error), path
        assert (job.document is None) == bool(job.validation_errors), path


@pytest.mark.parametrize(
    ("name", "workers", "errors", "is_refused"),
    [
        ("allowed", {"image": "trainer:2"}, (), False),
        (
            "refused by the profile",
            {"image": "mine:1"},
            (
                "spec.workers.image: profile default does not allow the image 'mine:1': use one of trainer:*, or ask an "
                "administrator to allow it",
            ),
            True,
        ),
        ("invalid", {"nodez": 2}, ("spec.workers.nodez: no such field; remove it or correct its spelling",), False),
    ],
)
def test_distinguishes_limits_of_a_profile_from_invalid_documents(
    name: str, workers: dict[str, Any], errors: tuple[str, ...], is_refused: bool
) -> None:
    profiles = Profiles.model_validate({"profiles": [{"name": "default", "limits": {"images": ["trainer:*"]}}]})
    cache = InformerCache(profiles)
    for version in (1, 2):
        job = cache.put_job(job_body(version, workers=workers))
        assert (job.validation_errors, job.is_refused_by_profile) == (errors, is_refused)
