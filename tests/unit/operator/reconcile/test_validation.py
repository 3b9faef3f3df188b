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


REFUSAL = "spec.workers.image: profile default does not allow the image 'mine:1': use one of trainer:*, or ask an administrator"
REFUSED = {"validation_errors": (REFUSAL,), "is_refused_by_profile": True}


def test_new_job_that_a_profile_refuses_fails_with_its_name_and_the_field() -> None:
    cluster = SimulatedCluster()
    cluster.job, cluster.observed = None, REFUSED
    assert cluster.reconcile().actions == ()
    assert cluster.condition(ConditionType.FAILED) == ("True", "InvalidConfiguration")
    assert cluster.message(ConditionType.FAILED) == f"A profile refuses the job: {REFUSAL}."


def test_running_job_survives_a_tightened_profile_which_its_message_names() -> None:
    cluster = SimulatedCluster().run_all_pods()
    valid_job, cluster.job, cluster.observed = cluster.job, None, REFUSED
    assert cluster.reconcile().actions == ()
    assert cluster.status.phase == "Running"
    assert cluster.condition(ConditionType.PODS_READY) == ("Unknown", "RefusedByProfile")
    assert cluster.status.reason == "RefusedByProfile"
    message = cluster.message(ConditionType.PODS_READY)
    assert REFUSAL in message
    assert "version of the operator" not in message
    cluster.job, cluster.observed = valid_job, {}
    cluster.reconcile_until_stable()
    assert cluster.condition(ConditionType.PODS_READY) == ("True", "PodsReady")
