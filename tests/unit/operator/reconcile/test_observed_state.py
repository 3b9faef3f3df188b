"""What is read of a Pod object."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from finetune_operator.reconcile import ReasonMessage, TerminatedState, read_pod


def body(**status: Any) -> dict[str, Any]:
    """A pod as the API server shows it."""
    return {
        "metadata": {
            "name": "j-1",
            "uid": "u",
            "resourceVersion": "42",
            "creationTimestamp": "2026-01-01T12:00:00Z",
            "labels": {"finetune-operator.io/job": "j", "finetune-operator.io/node-rank": "1"},
            "ownerReferences": [{"uid": "other"}, {"uid": "job-uid", "controller": True}],
        },
        "spec": {"nodeName": "node-1"},
        "status": status,
    }


def container(**state: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "sidecar", "state": {}}, {"name": "trainer", "state": state}]}


def condition(kind: str, status: str, **more: str) -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status, **more}]}


def test_identity() -> None:
    pod = read_pod(body(phase="Running", podIP="10.0.0.1"))
    assert (pod.name, pod.uid, pod.job_uid, pod.index, pod.version) == ("j-1", "u", "job-uid", 1, 42)
    assert (pod.node, pod.address, pod.phase, pod.deletion_deadline) == ("node-1", "10.0.0.1", "Running", None)
    assert pod.created == datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_deletion() -> None:
    deleted = body()
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T12:02:00Z"
    assert read_pod(deleted).deletion_deadline == datetime(2026, 1, 1, 12, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "field", "value"),
    [
        (condition("Ready", "True"), "ready", True),
        (condition("Ready", "False"), "ready", False),
        (
            container(terminated={"exitCode": 137, "reason": "OOMKilled", "message": "m"}),
            "ending",
            TerminatedState(137, "OOMKilled", "m"),
        ),
        (container(running={}), "ending", None),
        (condition("DisruptionTarget", "True", reason="PreemptionByScheduler", message="m"), "disruption",
         ReasonMessage("PreemptionByScheduler", "m")),
        ({"phase": "Failed", "reason": "Evicted", "message": "disk"}, "disruption", ReasonMessage("Evicted", "disk")),
        ({"phase": "Running", "reason": "NodeLost"}, "disruption", None),
        (condition("PodScheduled", "False", reason="Unschedulable", message="no GPU"), "trouble",
         ReasonMessage("Unschedulable", "no GPU")),
        (container(waiting={"reason": "ContainerCreating"}), "trouble", None),
        (container(waiting={"reason": "ErrImagePull", "message": "m"}), "trouble", ReasonMessage("ErrImagePull", "m")),
        ({}, "trouble", None),
    ],
)  # fmt: skip
def test_status(status: dict[str, Any], field: str, value: object) -> None:
    assert getattr(read_pod(body(**status)), field) == value


def test_pods_that_differ_in_version_only_are_equal() -> None:
    newer = body(phase="Running")
    newer["metadata"]["resourceVersion"] = "43"
    assert read_pod(newer) == read_pod(body(phase="Running"))
