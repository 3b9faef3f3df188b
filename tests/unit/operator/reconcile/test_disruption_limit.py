"""runPolicy.maxDisruptionsPerHour: loops of evictions end, and a healthy run on spot nodes never fails."""

from __future__ import annotations

import pytest
from tests.support.simulated_cluster import SimulatedCluster

from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile import ReconcileTimings
from finetune_operator.reconcile.disruption_limit import max_pause
from finetune_trainer.protocol.outcome import SavedCheckpoint

HOUR = 3600


def checkpoint(step: int) -> SavedCheckpoint:
    return SavedCheckpoint(step=step, time="2026-01-01T12:00:00Z", uri=f"s3://out/j/manifests/step-{step:08}.json")


def replace_pods(cluster: SimulatedCluster) -> None:
    """Wait out the back-off, and let the replacements become ready."""
    requeue_after = cluster.reconcile_until_stable().requeue_after
    if len([pod for pod in cluster.pods.values() if not pod.is_finished]) < 2:
        cluster.advance(requeue_after or 0).reconcile_until_stable()
    for index in (0, 1):
        cluster.make_ready(index)
    cluster.reconcile_until_stable()


def disrupt(cluster: SimulatedCluster, *indices: int) -> None:
    for index in indices:
        cluster.evict(index)
    cluster.reconcile()


def test_endless_evictions_end() -> None:
    """Each pod is evicted half a minute after it has started, as by a node that is always low on disk space."""
    cluster = SimulatedCluster(backoffLimit=3).run_all_pods()
    begin = cluster.now
    while cluster.status.phase == "Running":
        cluster.advance(30)
        disrupt(cluster, 1)
        if cluster.status.phase != "Failed":
            replace_pods(cluster)
    assert cluster.condition(ConditionType.FAILED) == ("True", "BackoffLimitExceeded")
    restarts = cluster.status.restarts
    assert (restarts.disruptions, restarts.failures) == (20, 4)
    assert HOUR / 4 < (cluster.now - begin).total_seconds() < HOUR
    assert (
        "runPolicy.maxDisruptionsPerHour: more than 20 disruptions within an hour without a newer checkpoint"
        in cluster.message(ConditionType.FAILED)
    )


@pytest.mark.parametrize("interval", [60, 180])
def test_run_that_progresses_on_spot_nodes_never_fails(interval: int) -> None:
    """A node is reclaimed every few minutes for ten hours; each pod stores a checkpoint before it goes."""
    cluster = SimulatedCluster(backoffLimit=0).run_all_pods()
    for number in range(1, 10 * HOUR // interval):
        cluster.advance(interval)
        cluster.fail(1, checkpoint=checkpoint(number)).update_pod(1, disruption=None)
        disrupt(cluster, 1)
        replace_pods(cluster)
        assert (cluster.status.phase, cluster.status.restarts.failures) == ("Running", 0), number


def test_ordinary_preemptions_without_progress_never_fail() -> None:
    """A reclaim every three minutes, before the first checkpoint, stays within the limit."""
    cluster = SimulatedCluster(backoffLimit=0).run_all_pods()
    next_reclaim = cluster.now.timestamp()
    for _ in range(100):
        next_reclaim += 180
        cluster.advance(next_reclaim - cluster.now.timestamp())
        disrupt(cluster, 1)
        replace_pods(cluster)
        assert (cluster.status.phase, cluster.status.restarts.failures) == ("Running", 0)


def test_pods_disrupted_together_are_one_disruption() -> None:
    cluster = SimulatedCluster(nodes=8, maxDisruptionsPerHour=1, backoffLimit=0).run_all_pods()
    cluster.advance(600)
    disrupt(cluster, 0, 1, 2)
    cluster.advance(20)
    disrupt(cluster, 3, 4, 5, 6)
    cluster.advance(20)
    disrupt(cluster, 7)
    restarts = cluster.status.restarts
    assert (restarts.disruptions, restarts.failures, len(restarts.recent_disruptions)) == (8, 0, 1)


def test_at_most_one_pod_of_an_exceeding_disruption_counts() -> None:
    cluster = SimulatedCluster(nodes=8, maxDisruptionsPerHour=0, backoffLimit=1).run_all_pods()
    cluster.advance(600)
    disrupt(cluster, 0, 1, 2)
    assert cluster.status.failure is not None
    assert "maxDisruptionsPerHour: any disruption counts towards backoffLimit" in cluster.status.failure.message
    cluster.advance(20)
    disrupt(cluster, 3, 4)
    restarts = cluster.status.restarts
    assert (restarts.disruptions, restarts.failures) == (4, 1)


def test_replacement_that_is_evicted_at_once_is_another_disruption() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.advance(600)
    disrupt(cluster, 1)
    cluster.advance(1).reconcile_until_stable()
    cluster.advance(5)
    disrupt(cluster, 1)
    assert len(cluster.status.restarts.recent_disruptions) == 2


def test_window_slides() -> None:
    cluster = SimulatedCluster(maxDisruptionsPerHour=2, backoffLimit=0).run_all_pods()
    for minutes in (0, 20, 41, 20, 41):
        cluster.advance(minutes * 60)
        disrupt(cluster, 1)
        replace_pods(cluster)
        assert cluster.status.phase == "Running"
        assert len(cluster.status.restarts.recent_disruptions) <= 2


def test_newer_checkpoint_ends_the_count() -> None:
    cluster = SimulatedCluster(maxDisruptionsPerHour=2).run_all_pods()
    for _ in range(2):
        cluster.advance(300)
        disrupt(cluster, 1)
        replace_pods(cluster)
    cluster.status = cluster.status.model_copy(update={"checkpoint": checkpoint(5)})
    cluster.advance(300)
    disrupt(cluster, 1)
    restarts = cluster.status.restarts
    assert (restarts.failures, [item.step for item in restarts.recent_disruptions]) == (0, [5])


@pytest.mark.parametrize(("limit", "seconds"), [(0, 300), (1, 300), (4, 300), (20, 60), (60, 20), (1000, 10)])
def test_pause_keeps_the_limit_reachable(limit: int, seconds: float) -> None:
    assert max_pause(limit, ReconcileTimings()) == seconds
