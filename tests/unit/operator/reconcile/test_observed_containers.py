"""The trainer container decides about its pod; sidecars and init containers matter only while it starts."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from tests.support.pod_statuses import (
    RUNNING,
    WAITING,
    beside_sidecar,
    body,
    container,
    ended,
    starting,
    terminated,
)

from finetune_operator.reconcile import FailedContainer, ReasonMessage, TerminatedState, parse_pod

FETCH = {"name": "fetch"}
NATIVE_SIDECAR = {"name": "proxy", "restartPolicy": "Always"}
PULL_ERROR = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "proxy:1"'}}
CRASH_LOOP = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
UNKNOWN = TerminatedState(137, "ContainerStatusUnknown", "The container could not be located when the pod was terminated")


class Case(NamedTuple):
    """A pod status, and the fields of the pod that differ from those of a pod that has just been created."""

    name: str
    status: dict[str, Any]
    expected: dict[str, Any]
    is_finished: bool = False
    has_stopped: bool = False
    init_containers: tuple[dict[str, Any], ...] = ()


CASES = [
    Case("trainer runs", {"phase": "Running", "containerStatuses": [container("trainer", RUNNING)]}, {"running": True}),
    Case("trainer and sidecar run", beside_sidecar(RUNNING), {"running": True}),
    Case(
        "trainer failed, sidecar runs",
        beside_sidecar(terminated(1)),
        {"terminated": TerminatedState(1, "Error")},
        is_finished=True,
    ),
    Case(
        "trainer completed, sidecar runs",
        beside_sidecar(terminated(0, "Completed")),
        {"terminated": TerminatedState(0, "Completed")},
        is_finished=True,
    ),
    Case("trainer runs, sidecar failed", beside_sidecar(RUNNING, terminated(1)), {"running": True}),
    Case("trainer runs, sidecar cannot be pulled", beside_sidecar(RUNNING, PULL_ERROR, phase="Pending"), {"running": True}),
    Case(
        "trainer failed, sidecar cannot be pulled",
        beside_sidecar(terminated(1), PULL_ERROR, phase="Pending"),
        {"terminated": TerminatedState(1, "Error")},
        is_finished=True,
    ),
    Case(
        "all failed",
        ended(terminated(1)),
        {"terminated": TerminatedState(1, "Error")},
        is_finished=True,
        has_stopped=True,
    ),
    Case(
        "container lost by the kubelet, in its state",
        ended(terminated(137, UNKNOWN.reason, UNKNOWN.message)),
        {"terminated": UNKNOWN},
        is_finished=True,
        has_stopped=True,
    ),
    Case(
        "container lost by the kubelet, in its last state",
        {
            "phase": "Failed",
            "containerStatuses": [
                container("trainer", WAITING, lastState=terminated(137, UNKNOWN.reason, UNKNOWN.message))
            ],
        },
        {"terminated": UNKNOWN},
        is_finished=True,
        has_stopped=True,
    ),
    Case(
        "failed by the pod garbage collector, with the old container state",
        {"phase": "Failed", "containerStatuses": [container("trainer", RUNNING)]},
        {},
        is_finished=True,
        has_stopped=True,
    ),
    Case(
        "init container runs",
        starting(container("fetch", RUNNING)),
        {"initializing": "fetch"},
        init_containers=(FETCH,),
    ),
    Case(
        "second init container runs",
        starting(container("fetch", terminated(0, "Completed")), container("unpack", RUNNING)),
        {"initializing": "unpack"},
        init_containers=(FETCH, {"name": "unpack"}),
    ),
    Case(
        "init container cannot be pulled",
        starting(container("fetch", PULL_ERROR)),
        {"waiting": ReasonMessage("ImagePullBackOff", 'init container fetch: Back-off pulling image "proxy:1"')},
        init_containers=(FETCH,),
    ),
    Case(
        "init container failed",
        starting(container("fetch", terminated(7, "Error", "no route to host")), phase="Failed"),
        {"failed_init_container": FailedContainer("fetch", TerminatedState(7, "Error", "no route to host"))},
        is_finished=True,
        has_stopped=True,
        init_containers=(FETCH,),
    ),
    Case(
        "native sidecar runs, and the init container after it",
        starting(container("proxy", RUNNING), container("fetch", RUNNING)),
        {"initializing": "fetch"},
        init_containers=(NATIVE_SIDECAR, FETCH),
    ),
    Case(
        "native sidecar has not passed its startup probe",
        starting(container("proxy", RUNNING, started=False)),
        {"initializing": "proxy"},
        init_containers=(NATIVE_SIDECAR,),
    ),
    Case(
        "native sidecar crashes before the trainer starts",
        starting(container("proxy", CRASH_LOOP, started=False)),
        {
            "waiting": ReasonMessage(
                "CrashLoopBackOff", "init container proxy: back-off 10s restarting failed container"
            )
        },
        init_containers=(NATIVE_SIDECAR,),
    ),
    Case(
        "native sidecar crashes while the trainer runs",
        starting(container("proxy", CRASH_LOOP), phase="Running", containerStatuses=[container("trainer", RUNNING)]),
        {"running": True},
        init_containers=(NATIVE_SIDECAR,),
    ),
    Case(
        "trainer failed, native sidecar terminates",
        starting(container("proxy", RUNNING), phase="Running", containerStatuses=[container("trainer", terminated(1))]),
        {"terminated": TerminatedState(1, "Error")},
        is_finished=True,
        init_containers=(NATIVE_SIDECAR,),
    ),
]  # fmt: skip

FIELDS = ("running", "terminated", "waiting", "initializing", "failed_init_container")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_parses_containers(case: Case) -> None:
    pod = parse_pod(body(case.status, init_containers=case.init_containers))
    defaults = {"running": False, "terminated": None, "waiting": None, "initializing": "", "failed_init_container": None}
    assert {field: getattr(pod, field) for field in FIELDS} == defaults | case.expected
    assert (pod.is_finished, pod.has_stopped) == (case.is_finished, case.has_stopped)


@pytest.mark.parametrize(
    ("sidecar", "has_unfinished_sidecar"),
    [
        pytest.param(RUNNING, True, id="runs"),
        pytest.param(PULL_ERROR, True, id="cannot be pulled"),
        pytest.param(terminated(1), False, id="has failed"),
        pytest.param(terminated(0, "Completed"), False, id="has completed"),
    ],
)
def test_pod_stops_by_itself_unless_a_sidecar_is_unfinished(sidecar: dict[str, Any], has_unfinished_sidecar: bool) -> None:
    assert parse_pod(body(beside_sidecar(terminated(1), sidecar))).has_unfinished_sidecar == has_unfinished_sidecar
