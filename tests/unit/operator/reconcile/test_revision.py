"""Documents that change while their job is suspended."""

from __future__ import annotations

from tests.support.simulated_cluster import SimulatedCluster

from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile import CreatePod


def images(cluster: SimulatedCluster) -> set[str]:
    return {pod.revision for pod in cluster.pods.values()}


def test_creates_pods_of_new_document_after_the_old_ones_ended() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.edit_workers(suspend=True, image="mine:2").reconcile()
    cluster.edit_workers(image="mine:2").reconcile()
    assert cluster.status.phase == "Pending"
    del cluster.pods["j-0"]
    plan = cluster.reconcile()
    assert not [action for action in plan.actions if isinstance(action, CreatePod)], "j-1 of the old document still terminates"
    assert cluster.condition(ConditionType.PODS_READY) == ("False", "PreviousPodsTerminating")
    assert cluster.message(ConditionType.PODS_READY).endswith("have terminated: j-1.")
    del cluster.pods["j-1"]
    cluster.run_all_pods()
    assert cluster.job is not None
    assert images(cluster) == {cluster.job.revision}
    assert cluster.status.restarts.total == 0


def test_replaces_running_pods_if_the_suspension_was_never_observed() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.edit_workers(image="mine:2").reconcile()
    assert all(pod.is_being_deleted for pod in cluster.pods.values())
    assert cluster.status.phase == "Pending"
    cluster.fail(0).reconcile()
    cluster.reconcile_until_stable()
    cluster.run_all_pods()
    assert cluster.status.restarts.total == 0, "pods of an earlier document do not count as failures"


def test_removes_pods_beyond_a_smaller_number_of_nodes() -> None:
    cluster = SimulatedCluster(nodes=2).run_all_pods()
    cluster.edit_workers(nodes=1).reconcile_until_stable()
    assert list(cluster.pods) == ["j-0"]
    assert cluster.run_all_pods().status.workers.summary == "1/1"


def test_keeps_pods_when_only_the_run_policy_changed() -> None:
    cluster = SimulatedCluster().run_all_pods()
    before = dict(cluster.pods)
    cluster.set_run_policy(backoffLimit=9).reconcile_until_stable()
    assert cluster.pods == before


def test_keeps_pods_whose_digest_another_version_of_the_operator_computed() -> None:
    cluster = SimulatedCluster().run_all_pods()
    for index in (0, 1):
        cluster.update_pod(index, revision="0123456789")
    assert cluster.reconcile_until_stable().actions == ()
    for index in (0, 1):
        cluster.update_pod(index, revision="", generation=-1)
    assert cluster.reconcile_until_stable().actions == (), "the version before this one set no revision"
