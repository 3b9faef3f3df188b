"""Parsing of Pod objects."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.pod_statuses import RUNNING, body, conditions, container, disruption_target

from finetune_operator.reconcile import InvalidPodError, ReasonMessage, TerminatedState, parse_pod
from finetune_operator.reconcile.observed_pod import PodCondition


def trainer(**state: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "sidecar", "state": {}}, {"name": "trainer", "state": state}]}


def condition(condition_type: str, status: str, **more: str) -> dict[str, Any]:
    return {"conditions": [{"type": condition_type, "status": status, **more}]}


LOST = ("Ready", "False", {"lastTransitionTime": "2026-01-01T12:30:00Z"})
NODE_LOST = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


def pod_conditions(*items: tuple[str, str, dict[str, str]]) -> dict[str, Any]:
    return {"conditions": [{"type": name, "status": status, **more} for name, status, more in items]}


def test_parses_metadata_and_addresses() -> None:
    pod = parse_pod(body({"phase": "Running", "podIP": "10.0.0.1"}))
    assert (pod.name, pod.uid, pod.job_uid, pod.index, pod.resource_version) == ("j-1", "u", "job-uid", 1, 42)
    assert (pod.node, pod.address, pod.phase, pod.deletion_deadline) == ("node-1", "10.0.0.1", "Running", None)
    assert pod.created == datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_deletion_timestamp_becomes_deadline() -> None:
    deleted = body({}, deletionTimestamp="2026-01-01T12:02:00Z")
    assert parse_pod(deleted).deletion_deadline == datetime(2026, 1, 1, 12, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "field", "value"),
    [
        pytest.param(condition("Ready", "True"), "ready", True, id="ready"),
        pytest.param(condition("Ready", "False"), "ready", False, id="not ready"),
        pytest.param(pod_conditions(LOST, ("ContainersReady", "True", {})), "node_lost_since", NODE_LOST, id="lost node"),
        pytest.param(pod_conditions(LOST, ("ContainersReady", "False", {})), "node_lost_since", None, id="restarting ranks"),
        pytest.param(
            pod_conditions(("Ready", "False", {"reason": "ReadinessGatesNotReady"}), ("ContainersReady", "True", {})),
            "node_lost_since",
            None,
            id="waiting for readiness gates",
        ),
        pytest.param(
            pod_conditions(("Ready", "True", {}), ("ContainersReady", "True", {})), "node_lost_since", None, id="healthy node"
        ),
        pytest.param(
            trainer(terminated={"exitCode": 137, "reason": "OOMKilled", "message": "m"}),
            "terminated",
            TerminatedState(137, "OOMKilled", "m"),
            id="terminated container",
        ),
        pytest.param(trainer(running={}), "terminated", None, id="running container"),
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
        pytest.param(trainer(waiting={"reason": "ContainerCreating"}), "waiting", None, id="starting container"),
        pytest.param(
            trainer(waiting={"reason": "ErrImagePull", "message": "m"}),
            "waiting",
            ReasonMessage("ErrImagePull", "m"),
            id="image pull error",
        ),
        pytest.param({}, "waiting", None, id="empty status"),
    ],
)
def test_parses_status(status: dict[str, Any], field: str, value: object) -> None:
    assert getattr(parse_pod(body(status)), field) == value


SIDECAR_NOT_READY = container("istio-proxy", RUNNING, ready=False)


@pytest.mark.parametrize(
    ("status", "is_ready"),
    [
        pytest.param(
            {"conditions": conditions(ready=True), "containerStatuses": [container("trainer", RUNNING)]}, True, id="all"
        ),
        pytest.param(
            {"conditions": conditions(ready=False), "containerStatuses": [SIDECAR_NOT_READY, container("trainer", RUNNING)]},
            True,
            id="only a sidecar is not ready",
        ),
        pytest.param(
            {"conditions": conditions(ready=False), "containerStatuses": [container("trainer", RUNNING, ready=False)]},
            False,
            id="the trainer is not ready",
        ),
        pytest.param(
            {
                "conditions": conditions(ready=False, containers_ready=True, reason="NodeNotReady"),
                "containerStatuses": [container("trainer", RUNNING)],
            },
            False,
            id="the node is lost",
        ),
        pytest.param({"conditions": conditions(ready=False)}, False, id="no container yet"),
    ],
)
def test_trainer_container_decides_about_readiness(status: dict[str, Any], is_ready: bool) -> None:
    assert parse_pod(body(status)).ready == is_ready


def test_keeps_conditions_of_ending_pods_only() -> None:
    running = body({"phase": "Running", **condition("Ready", "True")})
    assert parse_pod(running).conditions == ()
    target = disruption_target("EvictionByEvictionAPI", "Eviction API: evicting")
    evicted = body({"phase": "Running", "conditions": [*conditions(ready=True), target]})
    assert PodCondition("DisruptionTarget", "True", "EvictionByEvictionAPI") in parse_pod(evicted).conditions


def test_pods_with_different_resource_versions_are_equal() -> None:
    newer = body({"phase": "Running"}, resourceVersion="43")
    assert parse_pod(newer) == parse_pod(body({"phase": "Running"}, resourceVersion="42"))


@pytest.mark.parametrize("rank", [None, "", "one", "1.0", "1_0", "-1", "٣", " 1"])
def test_rejects_pod_without_node_rank(rank: str | None) -> None:
    foreign = body({})
    foreign["metadata"]["labels"]["finetune-operator.io/node-rank"] = rank
    with pytest.raises(InvalidPodError, match="not the number of a node"):
        parse_pod(foreign)
    del foreign["metadata"]["labels"]
    with pytest.raises(InvalidPodError):
        parse_pod(foreign)


FULL: dict[str, Any] = body(
    {
        "phase": "Failed",
        "podIP": "10.0.0.1",
        "reason": "Evicted",
        "message": "m",
        "conditions": [
            {"type": "Ready", "status": "False"},
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"},
            {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "m"},
        ],
        "containerStatuses": [{"name": "trainer", "state": {"terminated": {"exitCode": 0, "reason": "Error", "message": "m"}}}],
    }
)


@pytest.mark.parametrize("is_null", [True, False], ids=["null", "absent"])
def test_every_field_that_kubernetes_may_leave_out_is_optional(is_null: bool) -> None:
    def optional(value: Any, path: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        paths = []
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            paths.append((*path, key))
            if isinstance(item, dict | list):
                paths += optional(item, (*path, key))
        return paths

    paths = [("spec",), ("status",), *optional(FULL["spec"], ("spec",)), *optional(FULL["status"], ("status",))]
    owner = [("metadata", "ownerReferences"), ("metadata", "ownerReferences", 1, "uid"), ("metadata", "resourceVersion")]
    for path in [path for path in paths if not isinstance(path[-1], int)] + owner:
        changed = copy.deepcopy(FULL)
        target: Any = changed
        for key in path[:-1]:
            target = target[key]
        if is_null:
            target[path[-1]] = None
        else:
            del target[path[-1]]
        pod = parse_pod(changed)
        assert all(isinstance(text, str) for text in (pod.name, pod.phase, pod.node, pod.address, pod.job_uid)), path
        for part in (pod.disruption, pod.waiting, pod.terminated):
            assert part is None or (isinstance(part.reason, str) and isinstance(part.message, str)), path
        assert pod.terminated is None or isinstance(pod.terminated.exit_code, int), path


@pytest.mark.parametrize(
    "text", ["2026-01-01T12:00:00Z", "2026-01-01T12:00:00.5Z", "2026-01-01T12:00:00.123456789Z", "2026-01-01T12:00:00"]
)
def test_every_timestamp_can_be_compared(text: str) -> None:
    dated = body({})
    dated["metadata"] |= {"creationTimestamp": text, "deletionTimestamp": text}
    pod = parse_pod(dated)
    assert pod.created.replace(microsecond=0) == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert pod.deletion_deadline == pod.created
