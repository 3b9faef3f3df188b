"""workers.minNodes: runs that go on with fewer nodes and grow again, on a fixed clock."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from tests.support.elastic_cluster import ElasticCluster
from tests.support.simulated_cluster import OperatorKilled

from finetune_operator.api.conditions import ConditionType
from finetune_operator.profiles import Profiles
from finetune_operator.reconcile import Workload, WorkloadCondition
from finetune_trainer.protocol.outcome import Reason

GROW = 120  # seconds, the default of runPolicy.elastic.growAfterSeconds
SHRINK = 60


@pytest.mark.parametrize(
    ("nodes", "min_nodes", "hosts", "lost", "expected"),
    [
        pytest.param(2, 1, 2, ["host-1"], [2, 1, 2], id="the second of two"),
        pytest.param(2, 1, 2, ["host-0"], [2, 1, 2], id="the first of two"),
        pytest.param(2, 2, 2, ["host-1"], [2], id="below minNodes it waits"),
        pytest.param(4, 1, 4, ["host-3"], [4, 2, 4], id="numbers that do not divide the batch are left out"),
        pytest.param(4, 1, 4, ["host-0", "host-1", "host-2"], [4, 1, 4], id="all but one"),
        pytest.param(2, 1, 3, ["host-0"], [2], id="another host has room"),
        pytest.param(2, 1, 1, [], [1], id="it never fitted"),
    ],
)
def test_goes_on_with_the_nodes_that_are_left(
    nodes: int, min_nodes: int, hosts: int, lost: list[str], expected: list[int]
) -> None:
    cluster = ElasticCluster(nodes, min_nodes, hosts).run(120)
    for host in lost:
        cluster.lose(host)
    cluster.run(200)
    if lost and expected[1:]:
        assert cluster.size == expected[1]
        assert cluster.condition(ConditionType.DEGRADED) == ("True", "RunningSmaller")
        assert cluster.status.reason == "RunningSmaller"
        assert cluster.status.workers.summary == f"{expected[1]}/{nodes}"
        assert cluster.status.workers.replicas == expected[1]
    for host in lost:
        cluster.restore(host)
    cluster.run(3 * GROW)
    assert cluster.sizes == expected
    if lost:
        assert cluster.size == nodes
        assert cluster.status.workers.summary == f"{nodes}/{nodes}"
    if expected[1:]:
        assert cluster.condition(ConditionType.DEGRADED) == ("False", "AllNodes")
        assert cluster.status.elastic is not None
        assert cluster.status.elastic.resizes == 2
    restarts = cluster.status.restarts
    assert (restarts.failures, restarts.disruptions) == (0, len(lost)), "a resize spends no budget; a lost node is a disruption"


def test_waits_for_a_moment_before_it_shrinks() -> None:
    cluster = ElasticCluster().run(60).lose("host-1")
    cluster.run(SHRINK - 5)
    assert cluster.size == 2
    assert "the run goes on with fewer nodes" in cluster.message(ConditionType.PODS_READY)
    assert cluster.run(30).size == 1
    assert any(event.reason == "Resizing" and event.type == "Warning" for event in cluster.events)


def test_pods_that_cannot_save_get_little_time_to_stop() -> None:
    """The ranks that are left wait for those of the lost node; their pods would use their whole grace period."""
    cluster = ElasticCluster().run(60).lose("host-1")
    cluster.deletions.clear()
    cluster.run(120)
    assert [item.grace_seconds for item in cluster.deletions if item.name == "j-0"] == [15]


def test_scaling_stops_the_run_with_a_checkpoint() -> None:
    cluster = ElasticCluster(4, hosts=4).run(60)
    cluster.deletions.clear()
    cluster.scale(2).tick()
    assert {item.name for item in cluster.deletions} == {"j-0", "j-2", "j-3"}, "the second pod waits in its place"
    assert {item.grace_seconds for item in cluster.deletions} == {None}
    assert cluster.condition(ConditionType.RESTARTING) == ("True", "Resizing")
    cluster.run(30)
    assert cluster.status.workers.summary == "2/2"
    assert cluster.condition(ConditionType.DEGRADED) is None
    assert [event.type for event in cluster.events if event.reason == "Resizing"] == ["Normal"]
    cluster.scale(4).run(30)
    assert cluster.sizes == [4, 2], "growth waits for a pause after a resize"
    assert cluster.run(2 * GROW).sizes == [4, 2, 4]
    assert cluster.status.restarts.total == 0


def test_first_growth_waits_for_no_pause() -> None:
    cluster = ElasticCluster(2, hosts=4)
    cluster.batch_size = 16
    cluster.scale(2).run(60)
    assert cluster.scale(4).run(30).sizes == [2, 4]


def test_repeated_scaling_is_bounded() -> None:
    """An autoscaler that changes its mind every minute: each growth waits longer, and no pod is stopped without its time."""
    cluster = ElasticCluster(2).run(60)
    for minute in range(60):
        cluster.scale(1 + minute % 2).run(60, tick=10)
    assert cluster.status.elastic is not None
    assert 2 < cluster.status.elastic.resizes < 10
    assert cluster.cut_short == []
    assert cluster.status.restarts.total == 0


def test_pods_for_growth_hold_resources_only_for_a_while() -> None:
    """Four nodes are wanted, two run, and one more host is free: three nodes do not divide the batch."""
    cluster = ElasticCluster(4, hosts=3).run(SHRINK + 30)
    assert cluster.size == 2
    held = 0
    for _ in range(1000):
        cluster.tick(10)
        held += any(pod.node and pod.index >= 2 for pod in cluster.pods.values())
    assert cluster.sizes == [2]
    assert 0 < held < 150, "of 1,000 looks"
    cluster.lost_since["host-3"] = None
    assert cluster.run(2 * 3600, tick=30).sizes == [2, 4]


def test_failed_pod_for_growth_is_no_failure_of_the_run() -> None:
    cluster = ElasticCluster(hosts=1).run(SHRINK + 3 * GROW)
    cluster.lost_since["host-1"] = None
    cluster.advance(5)._schedule()
    cluster.fail(1, Reason.CRASHED).reconcile()
    assert cluster.status.restarts.total == 0
    assert cluster.status.phase == "Running"
    cluster.run(2 * 3600, tick=30)
    assert cluster.sizes == [1, 2]


def test_member_that_crashes_is_no_missing_node() -> None:
    """The failure policy bounds crashes; a smaller run would not help."""
    cluster = ElasticCluster(backoffLimit=3).run(60)
    for _ in range(3):
        cluster.fail(1, Reason.CRASHED).run(10)
        cluster.run(300)
    assert cluster.sizes == [2]
    assert cluster.status.restarts.failures == 3


def test_suspension_forgets_the_size() -> None:
    cluster = ElasticCluster().run(60).lose("host-1").run(200)
    assert cluster.size == 1
    cluster.scale(2, suspend=True).run(10)
    assert cluster.condition(ConditionType.DEGRADED) is None
    assert (cluster.size, cluster.status.workers.replicas) == (None, 0)
    cluster.restore("host-1").scale(2, suspend=False).run(60)
    assert cluster.sizes == [2, 1, 2]


def test_uses_no_more_pods_than_the_queue_has_admitted() -> None:
    cluster = ElasticCluster(2)
    cluster.scale(2)
    assert cluster.job is not None
    metadata = cluster.job.metadata.model_copy(update={"labels": {"kueue.x-k8s.io/queue-name": "q"}})
    cluster.job = cluster.job.model_copy(update={"metadata": metadata})
    admitted = WorkloadCondition("Admitted", "True", "Admitted", "", "2026-01-01T12:00:00Z")
    reserved = WorkloadCondition("QuotaReserved", "True", "QuotaReserved", "", "2026-01-01T12:00:00Z")
    workload = Workload("w", "u", "job-uid", 1, "q", "", conditions=(reserved, admitted), cluster_queue="c", pods=1)
    cluster.observed["workload"] = workload
    assert cluster.run(60).sizes == [1]
    assert cluster.condition(ConditionType.DEGRADED) == ("True", "AdmittedSmaller")
    assert cluster.status.reason == "AdmittedSmaller"
    assert cluster.message(ConditionType.DEGRADED) == (
        "The run uses 1 of 2 nodes. workers.nodes: the queue q has admitted 1 of 2 nodes: set runPolicy.suspend: true, and "
        "false when the pods have stopped, so that it admits all of them."
    )
    assert cluster.status.workers.summary == "1/2"
    cluster.observed["workload"] = replace(workload, pods=2)
    assert cluster.run(60).sizes == [1, 2]
    assert cluster.condition(ConditionType.DEGRADED) == ("False", "AllNodes")


def limited(cluster: ElasticCluster, max_nodes: int) -> ElasticCluster:
    """Apply the profile of an administrator to the job, as the operator does with each change of it."""
    assert cluster.job is not None
    profiles = Profiles.model_validate({"profiles": [{"name": "team", "namespaces": ["*"], "limits": {"maxNodes": max_nodes}}]})
    cluster.job = profiles.apply(cluster.job)
    return cluster


def test_goes_on_when_it_is_scaled_beyond_the_limit_of_its_profile() -> None:
    cluster = ElasticCluster(4, hosts=5)
    limited(cluster.scale(2), 3).run(60)
    assert cluster.sizes == [2]
    limited(cluster.scale(4), 3).run(60)
    assert cluster.condition(ConditionType.DEGRADED) == ("True", "LimitedByProfile")
    assert cluster.message(ConditionType.DEGRADED) == (
        "The run uses 2 of 4 nodes. workers.nodes: profile team allows at most 3: scale the job to 2, or ask an administrator "
        "to allow more."
    )
    assert (cluster.status.workers.summary, cluster.status.workers.desired) == ("2/4", 4)
    lost = cluster.pods["j-1"].node
    assert cluster.lose(lost).run(60).sizes == [2]
    assert {pod.node for pod in cluster.pods.values()}.isdisjoint({lost}), "the lost pod was replaced"
    limited(cluster.scale(4), 4).run(3 * GROW)
    assert cluster.sizes == [2, 4]
    assert cluster.condition(ConditionType.DEGRADED) == ("False", "AllNodes")


def test_gets_smaller_when_the_limit_of_its_profile_does() -> None:
    cluster = ElasticCluster(4, hosts=4).run(60)
    limited(cluster, 2).run(60)
    assert cluster.sizes == [4, 2]
    assert cluster.condition(ConditionType.DEGRADED) == ("True", "LimitedByProfile")
    assert cluster.status.restarts.total == 0


def test_flapping_node_and_killed_operator() -> None:
    """Six hours in which hosts come and go and the operator is killed at random writes; the simulation checks each size."""
    chance = random.Random(3)
    cluster = ElasticCluster(4, hosts=4).run(60)
    for _ in range(6 * 30):
        host = f"host-{chance.randrange(4)}"
        if cluster.lost_since[host] is None and chance.random() < 0.3:
            cluster.lose(host)
        else:
            cluster.restore(host)
        cluster.writes_until_killed = chance.choice([0, 1, 2, 3, float("inf")])
        for _ in range(8):
            try:
                cluster.tick(15)
            except OperatorKilled:
                cluster.writes_until_killed = float("inf")
        cluster.writes_until_killed = float("inf")
    elastic = cluster.status.elastic
    assert elastic is not None
    assert elastic.resizes < 40, "growth happens at most about once an hour; shrinking follows the losses"
    assert cluster.status.restarts.failures == 0
    assert cluster.status.phase in ("Running", "Restarting")
    assert cluster.cut_short == []
    for host in cluster.lost_since:
        cluster.restore(host)
    cluster.run(2 * 3600, tick=30)
    assert (cluster.size, cluster.status.phase, cluster.status.workers.summary) == (4, "Running", "4/4")
