"""Cleanup after the end of a job."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.simulated_cluster import SimulatedCluster, document

from finetune_operator.api import FineTuneJob, JobStatus
from finetune_operator.reconcile import DeleteJob, DeletePod, TerminatedState
from finetune_trainer.protocol.outcome import Reason


def test_deletes_running_pods_and_keeps_finished_pods() -> None:
    cluster = SimulatedCluster(nodes=3).run_all_pods()
    cluster.succeed(0).succeed(1).reconcile_until_stable()
    assert cluster.advance(30).reconcile().actions == (DeletePod("j-2", "pod-uid-3"),)
    cluster.reconcile_until_stable()
    assert sorted(cluster.pods) == ["j-0", "j-1"]


def test_failed_job_deletes_counted_pod_with_sidecar() -> None:
    """Its sidecar would hold the GPUs of the pod for ever."""
    cluster = SimulatedCluster(backoffLimit=0).run_all_pods()
    cluster.update_pod(1, ready=False, terminated=TerminatedState(1, "Error"), has_unfinished_sidecar=True)
    assert set(cluster.reconcile().actions) == {DeletePod("j-0", "pod-uid-1"), DeletePod("j-1", "pod-uid-2")}
    assert cluster.status.phase == "Failed"


def test_permanently_failed_pod_with_sidecar_is_deleted_after_a_moment() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.fail(1, Reason.INVALID_DATA).update_pod(1, phase="Running")
    assert cluster.reconcile().actions == (DeletePod("j-0", "pod-uid-1"),)
    assert cluster.advance(30).reconcile().actions[-1] == DeletePod("j-1", "pod-uid-2")


@pytest.mark.parametrize("later", ["fail", "evict", "delete"])
def test_finished_job_ignores_pod_failures(later: str) -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.succeed(0).reconcile_until_stable()
    before = cluster.status
    getattr(cluster, later)(1)
    cluster.reconcile_until_stable()
    cluster.pods.clear()
    cluster.advance(1000).reconcile_until_stable()
    assert cluster.status == before
    assert cluster.created == ["j-0", "j-1"]


@pytest.mark.parametrize("end", ["succeed", "fail"])
def test_deletes_job_after_ttl(end: str) -> None:
    cluster = SimulatedCluster(nodes=1, ttlSecondsAfterFinished=60, backoffLimit=0).run_all_pods()
    getattr(cluster, end)(0)
    cluster.reconcile()
    assert cluster.status.completion_time is not None
    assert cluster.plan().requeue_after == 60
    assert not cluster.advance(59).reconcile_until_stable().actions
    assert not cluster.job_deleted
    assert cluster.advance(1).reconcile().actions == (DeleteJob(),)


@pytest.mark.parametrize(
    "status",
    [{"phase": "Succeeded"}, {"phase": "Failed"}, {"completionTime": "2026-01-01T12:00:00Z"}],
    ids=["succeeded", "failed", "completion time alone"],
)
def test_any_sign_of_the_end_is_final(status: dict[str, Any]) -> None:
    cluster = SimulatedCluster(ttlSecondsAfterFinished=100)
    cluster.status = JobStatus.model_validate(status)
    cluster.reconcile_until_stable()
    assert cluster.created == []
    assert cluster.status.completion_time == "2026-01-01T12:00:00Z"
    cluster.advance(100).reconcile()
    assert cluster.job_deleted


def test_simulated_cluster_runs_the_sample_document() -> None:
    assert SimulatedCluster().job == FineTuneJob.model_validate(document())
