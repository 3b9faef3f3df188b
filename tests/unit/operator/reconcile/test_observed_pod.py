"""Parsing of Pod objects."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from finetune_operator.reconcile import ReasonMessage, TerminatedState, parse_pod


def body(**status: Any) -> dict[str, Any]:
    """A Pod object with the given status."""
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


def condition(condition_type: str, status: str, **more: str) -> dict[str, Any]:
    return {"conditions": [{"type": condition_type, "status": status, **more}]}


def test_parses_metadata_and_addresses() -> None:
    pod = parse_pod(body(phase="Running", podIP="10.0.0.1"))
    assert (pod.name, pod.uid, pod.job_uid, pod.index, pod.resource_version) == ("j-1", "u", "job-uid", 1, 42)
    assert (pod.node, pod.address, pod.phase, pod.deletion_deadline) == ("node-1", "10.0.0.1", "Running", None)
    assert pod.created == datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_deletion_timestamp_becomes_deadline() -> None:
    deleted = body()
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T12:02:00Z"
    assert parse_pod(deleted).deletion_deadline == datetime(2026, 1, 1, 12, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "field", "value"),
    [
        pytest.param(condition("Ready", "True"), "ready", True, id="ready"),
        pytest.param(condition("Ready", "False"), "ready", False, id="not ready"),
        pytest.param(
            container(terminated={"exitCode": 137, "reason": "OOMKilled", "message": "m"}),
            "terminated",
            TerminatedState(137, "OOMKilled", "m"),
            id="terminated container",
        ),
        pytest.param(container(running={}), "terminated", None, id="running container"),
        pytest.param(
            condition("DisruptionTarget", "True", reason="PreemptionByScheduler", message="m"),
            "disruption",
            ReasonMessage("PreemptionByScheduler", "m"),
            id="preempted by the scheduler",
        ),
        pytest.param(
            {"phase": "Failed", "reason": "Evicted", "message": "disk"},
            "disruption",
            ReasonMessage("Evicted", "disk"),
            id="evicted by the kubelet",
        ),
        pytest.param({"phase": "Running", "reason": "NodeLost"}, "disruption", None, id="running on a lost node"),
        pytest.param(
            condition("PodScheduled", "False", reason="Unschedulable", message="no GPU"),
            "waiting",
            ReasonMessage("Unschedulable", "no GPU"),
            id="unschedulable",
        ),
        pytest.param(container(waiting={"reason": "ContainerCreating"}), "waiting", None, id="starting container"),
        pytest.param(
            container(waiting={"reason": "ErrImagePull", "message": "m"}),
            "waiting",
            ReasonMessage("ErrImagePull", "m"),
            id="image pull error",
        ),
        pytest.param({}, "waiting", None, id="empty status"),
    ],
)
def test_parses_status(status: dict[str, Any], field: str, value: object) -> None:
    assert getattr(parse_pod(body(**status)), field) == value


def test_pods_with_different_resource_versions_are_equal() -> None:
    newer = body(phase="Running")
    newer["metadata"]["resourceVersion"] = "43"
    assert parse_pod(newer) == parse_pod(body(phase="Running"))
