"""Jobs with an invalid spec, before and after their start."""

from __future__ import annotations

import pytest
from tests.support.simulated_cluster import SimulatedCluster

from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile import MissingSecret


def test_invalid_spec_fails_without_creating_pods() -> None:
    cluster = SimulatedCluster()
    cluster.job, cluster.observed = None, {"validation_errors": ("spec.model.config: needs model_type",)}
    plan = cluster.reconcile()
    assert plan.actions == ()
    assert cluster.status.phase == "Failed"
    assert cluster.condition(ConditionType.FAILED) == ("True", "InvalidConfiguration")
    assert "spec.model.config: needs model_type" in cluster.message(ConditionType.FAILED)
    assert cluster.reconcile_until_stable().actions == ()


def test_running_job_survives_operator_that_rejects_its_spec() -> None:
    cluster = SimulatedCluster().run_all_pods()
    valid_job, cluster.job = cluster.job, None
    cluster.observed = {"validation_errors": ("spec.x: no such field",)}
    assert cluster.reconcile().actions == ()
    assert cluster.status.phase == "Running"
    assert cluster.condition(ConditionType.PODS_READY) == ("Unknown", "InvalidSpec")
    cluster.job, cluster.observed = valid_job, {}
    cluster.reconcile_until_stable()
    assert cluster.condition(ConditionType.PODS_READY) == ("True", "PodsReady")
    assert cluster.status.restarts.total == 0


def test_job_with_invalid_spec_can_complete() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.job, cluster.observed = None, {"validation_errors": ("spec.x: no such field",)}
    cluster.succeed(0).reconcile()
    assert cluster.status.phase == "Succeeded"


UNREADABLE = {"validation_errors": ("spec.x: no such field",)}


@pytest.mark.parametrize("state", ["created suspended", "suspended", "resumed", "waiting for a Secret"])
def test_accepted_job_whose_spec_cannot_be_read_is_left_alone(state: str) -> None:
    cluster = SimulatedCluster(suspend=state == "created suspended")
    match state:
        case "suspended":
            cluster.run_all_pods().set_run_policy(suspend=True).reconcile_until_stable()
        case "resumed":
            cluster.run_all_pods().set_run_policy(suspend=True).reconcile_until_stable()
            cluster.set_run_policy()
            cluster.observed = {"missing_secrets": (MissingSecret("spec.checkpoint.credentials", "s3"),)}
        case "waiting for a Secret":
            cluster.observed = {"missing_secrets": (MissingSecret("spec.checkpoint.credentials", "s3"),)}
    cluster.reconcile_until_stable()
    before, valid_job, cluster.job = cluster.status, cluster.job, None
    assert before.start_time is None
    cluster.observed = UNREADABLE
    assert cluster.reconcile_until_stable().actions == ()
    assert cluster.status.phase == before.phase
    assert cluster.condition(ConditionType.PODS_READY) == ("Unknown", "InvalidSpec")
    assert "leaves the job alone: spec.x: no such field" in cluster.message(ConditionType.PODS_READY)
    cluster.job, cluster.observed = valid_job, {}
    cluster.reconcile_until_stable()
    assert cluster.condition(ConditionType.PODS_READY) in (("False", "Suspended"), ("False", "PodsStarting"))
    assert cluster.condition(ConditionType.FAILED) is None
