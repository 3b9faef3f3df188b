"""Faults of processes: ranks and containers that are killed or stopped."""

from __future__ import annotations

import signal

import pytest
from tests.support.cluster_run import ClusterRun
from tests.support.reliability import Measure


@pytest.mark.parametrize("index", [0, 1])
def test_killed_rank(run: ClusterRun, measure: Measure, index: int) -> None:
    """All ranks restart inside their pods, and the operator counts neither a failure nor a disruption."""
    run.wait_until_spares_are_ready()
    pods, restarts = run.uids(), run.restarts()
    with measure.fault(2, f"SIGKILL of the rank in pod {index}, with a spare in each pod", run):
        run.signal_rank(index, signal.SIGKILL)
    assert run.uids() == pods, "no pod is lost"
    assert run.restarts() == restarts


def test_stopped_rank(run: ClusterRun, measure: Measure) -> None:
    """A rank that makes no progress is found by its limit, named, and restarted with its peers."""
    pods = run.uids()
    with measure.fault(3, "SIGSTOP of a rank", run):
        run.signal_rank(1, signal.SIGSTOP)
    assert run.uids() == pods, "no pod is lost"
    run.wait("the cause of the restart", lambda: "Hang" in run.condition("Running")[2])
    _, _, message = run.condition("Running")
    assert "rank 1" in message
    assert "runPolicy.hang.stepSeconds" in message


def test_killed_container(run: ClusterRun, measure: Measure) -> None:
    """A pod whose agent dies is replaced; that is a failure, which counts towards backoffLimit."""
    first, second = run.uids()
    failures = run.restarts()["failures"]
    with measure.fault(2, "SIGKILL of all processes of pod 1", run):
        run.kill_container(1)
    assert run.uids()[0] == first, "only the lost pod was replaced"
    assert run.uids()[1] != second
    assert run.restarts()["failures"] == failures + 1


@pytest.mark.parametrize(
    ("grace", "is_saved"), [pytest.param(30, True, id="enough time to save"), pytest.param(1, False, id="too short to save")]
)
def test_short_grace(run: ClusterRun, measure: Measure, grace: int, is_saved: bool) -> None:
    """A pod that is stopped stores a checkpoint if it has the time; otherwise the previous one is intact."""
    restarts = run.restarts()
    with measure.fault(9, f"SIGTERM of a pod, grace period {grace} s", run, **({"steps_lost": 0} if is_saved else {})):
        run.delete_pod(1, f"--grace-period={grace}")
    assert run.restarts() == {**restarts, "disruptions": restarts["disruptions"] + 1}
