"""status.reason, the word next to the phase."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.support.simulated_cluster import SimulatedCluster

from finetune_operator.reconcile import MissingSecret, ReasonMessage
from finetune_trainer.protocol.outcome import Reason, RunStatus


def observed(**fields: object) -> Callable[[SimulatedCluster], object]:
    """Override fields of the observed state."""

    def incident(cluster: SimulatedCluster) -> None:
        cluster.observed = fields

    return incident


@pytest.mark.parametrize(
    ("is_running", "incident", "phase", "reason"),
    [
        pytest.param(False, lambda cluster: cluster, "Pending", None, id="starting"),
        pytest.param(True, lambda cluster: cluster, "Running", None, id="running"),
        pytest.param(True, lambda cluster: cluster.succeed(0), "Succeeded", None, id="succeeded"),
        pytest.param(True, lambda cluster: cluster.fail(0, Reason.INVALID_DATA), "Failed", "InvalidData", id="failed"),
        pytest.param(True, lambda cluster: cluster.set_run_policy(suspend=True), "Suspended", None, id="suspended"),
        pytest.param(True, lambda cluster: cluster.fail(1), "Restarting", "Crashed", id="crashed"),
        pytest.param(True, lambda cluster: cluster.evict(1), "Restarting", "Disrupted", id="drained"),
        pytest.param(True, lambda cluster: cluster.update_pod(1, ready=False), "Running", "PodsNotReady", id="not ready"),
        pytest.param(
            False,
            lambda cluster: cluster.update_pod(1, waiting=ReasonMessage("ImagePullBackOff", "typo")),
            "Pending",
            "ImagePullBackOff",
            id="image",
        ),
        pytest.param(
            False,
            lambda cluster: cluster.update_pod(1, waiting=ReasonMessage("Unschedulable", "no GPU")),
            "Pending",
            "Unschedulable",
            id="no GPU",
        ),
        pytest.param(
            True,
            observed(run=RunStatus(activity="Training", checkpoint_error="503")),
            "Running",
            "CheckpointSaveFailed",
            id="checkpoint not saved",
        ),
    ],
)
def test_names_what_is_wrong(
    is_running: bool, incident: Callable[[SimulatedCluster], object], phase: str, reason: str | None
) -> None:
    cluster = SimulatedCluster()
    if is_running:
        cluster.run_all_pods()
    else:
        cluster.reconcile_until_stable()
    incident(cluster)
    cluster.reconcile()
    assert (cluster.status.phase, cluster.status.reason) == (phase, reason)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"missing_secrets": (MissingSecret("spec.checkpoint.credentials", "s3"),)}, "SecretNotFound", id="Secret"),
        pytest.param({"create_error": ReasonMessage("QuotaExceeded", "no room")}, "QuotaExceeded", id="quota"),
        pytest.param({"unowned_pods": ("j-0",)}, "PreviousPodsTerminating", id="previous pods"),
    ],
)
def test_names_why_no_pods_are_created(fields: dict[str, object], reason: str) -> None:
    cluster = SimulatedCluster()
    cluster.observed = fields
    cluster.reconcile()
    assert (cluster.status.phase, cluster.status.reason) == ("Pending", reason)


def test_disappears_when_all_is_well_again() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.fail(1).reconcile_until_stable()
    assert cluster.status.reason == "Crashed"
    cluster.make_ready(1).reconcile_until_stable()
    assert cluster.status.reason is None


def test_waiting_for_a_repeated_restart_is_named() -> None:
    cluster = SimulatedCluster(nodes=1).run_all_pods()
    for _ in range(2):
        cluster.fail(0).reconcile_until_stable()
        if cluster.status.reason != "BackingOff":
            cluster.make_ready(0).reconcile_until_stable()
    assert (cluster.status.phase, cluster.status.reason) == ("Restarting", "BackingOff")
