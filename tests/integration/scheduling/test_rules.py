"""What may change in a queued job, with a real API server."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.cluster_jobs import Jobs, tiny
from tests.support.devcluster.errors import ClusterError

IMMUTABLE_MANAGER = "spec.managedBy: Invalid value: another controller may work on the job already, so that it cannot change"
SUSPENDED: dict[str, Any] = {"runPolicy": {"suspend": True}}


@pytest.mark.parametrize(
    ("name", "created", "changed", "refusal"),
    [
        (
            "queue-of-an-active-job",
            {"scheduling": {"queueName": "a"}},
            {"scheduling": {"queueName": "b"}},
            "spec.scheduling: Invalid value: it can change only while the job is suspended",
        ),
        ("queue-while-suspended", SUSPENDED | {"scheduling": {"queueName": "a"}}, {"scheduling": {"queueName": "b"}}, ""),
        ("queue-with-suspension", {"scheduling": {"queueName": "a"}}, SUSPENDED | {"scheduling": {"queueName": "b"}}, ""),
        (
            "queue-with-resumption",
            SUSPENDED | {"scheduling": {"queueName": "a"}},
            {"runPolicy": {"suspend": False}, "scheduling": {"gang": "Native"}},
            "",
        ),
        ("manager", SUSPENDED | {"managedBy": "example.com/a"}, {"managedBy": "example.com/b"}, IMMUTABLE_MANAGER),
        ("manager-removed", SUSPENDED | {"managedBy": "example.com/a"}, {"managedBy": None}, IMMUTABLE_MANAGER),
        ("manager-added", SUSPENDED, {"managedBy": "example.com/a"}, IMMUTABLE_MANAGER),
    ],
)
def test_change(jobs: Jobs, name: str, created: dict[str, Any], changed: dict[str, Any], refusal: str) -> None:
    jobs.apply(tiny(name, "s3://bucket/job", **created))
    if not refusal:
        jobs.patch(name, changed)
        return
    with pytest.raises(ClusterError, match=refusal):
        jobs.patch(name, changed)
