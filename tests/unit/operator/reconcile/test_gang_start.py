"""runPolicy.pendingTimeoutSeconds: which jobs release their pods, when they try again, and when they fail."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.support.simulated_cluster import NOON, SimulatedCluster

from finetune_operator.api.conditions import ConditionType, parse_timestamp
from finetune_operator.reconcile import MissingSecret, Pod, ReasonMessage

UNSCHEDULABLE = ReasonMessage("Unschedulable", "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")
NO_IMAGE = ReasonMessage("ImagePullBackOff", 'Back-off pulling image "typo"')
QUOTA = ReasonMessage("QuotaExceeded", "The quota has no room for this job: exceeded quota: gpus")


def half_started(**run_policy: Any) -> SimulatedCluster:
    """A job of two nodes whose first pod is bound to a node, and whose second pod is not yet."""
    cluster = SimulatedCluster(**run_policy)
    cluster.reconcile_until_stable()
    return cluster.update_pod(0, phase="Running", node="node-0")


def test_releases_all_pods_after_timeout_and_tries_again() -> None:
    cluster = half_started().update_pod(1, waiting=UNSCHEDULABLE)
    plan = cluster.reconcile_until_stable()
    assert plan.requeue_after == 30, "the node of the bound pod is checked long before the timeout"
    assert cluster.message(ConditionType.PODS_READY) == (
        "0 of 2 pods are ready. Pod j-1 cannot be scheduled: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu. "
        "If it does not start by 2026-01-01T12:15:00Z, all pods of the job are deleted and created again later."
    )
    assert cluster.advance(899).reconcile_until_stable().actions == ()
    cluster.advance(1).reconcile_until_stable()
    assert cluster.pods == {}
    assert [event.reason for event in cluster.events] == ["PodsReleased"]
    assert cluster.condition(ConditionType.PODS_READY) == ("False", "Unschedulable")
    pending = cluster.status.pending
    assert pending is not None
    assert pending.retry_time is not None
    assert (
        f"Pod j-1 cannot be scheduled: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu. The pods were released at "
        f"2026-01-01T12:15:00Z and are created again at {pending.retry_time}." in cluster.message(ConditionType.PODS_READY)
    )
    assert (cluster.status.phase, cluster.status.reason, cluster.status.restarts.total) == ("Pending", "Unschedulable", 0)

    pause = (parse_timestamp(pending.retry_time) - cluster.now).total_seconds()
    assert 15 <= pause <= 45
    assert cluster.advance(pause - 1).reconcile_until_stable().actions == ()
    cluster.advance(1).reconcile_until_stable()
    assert sorted(cluster.pods) == ["j-0", "j-1"]
    cluster.run_all_pods()
    assert cluster.status.pending is None
    assert cluster.status.reason is None


@pytest.mark.parametrize(
    ("pods", "observed", "is_released"),
    [
        pytest.param({1: {"waiting": UNSCHEDULABLE}}, {}, True, id="one pod cannot be scheduled"),
        pytest.param({1: {"waiting": NO_IMAGE, "node": "node-1"}}, {}, True, id="one image cannot be pulled"),
        pytest.param(
            {1: {"node": "node-1"}},
            {"start_problems": {"pod-uid-2": ReasonMessage("FailedMount", 'configmap "typo" not found')}},
            True,
            id="one volume cannot be mounted",
        ),
        pytest.param(
            {1: None}, {"create_error": QUOTA, "create_retry_time": NOON + timedelta(hours=1)}, True, id="one pod is rejected"
        ),
        pytest.param(
            {1: None}, {"missing_secrets": (MissingSecret("spec.checkpoint.credentials", "s3"),)}, True, id="a Secret is gone"
        ),
        pytest.param(
            {0: {"node": "", "phase": "Pending", "waiting": UNSCHEDULABLE}, 1: {"waiting": UNSCHEDULABLE}},
            {},
            False,
            id="no pod holds resources, and an autoscaler may add nodes",
        ),
        pytest.param({1: {"node": "node-1"}}, {}, False, id="a large image is being pulled"),
        pytest.param({0: {"ready": True}, 1: {"node": "node-1", "phase": "Running"}}, {}, False, id="one pod is not ready yet"),
    ],
)
def test_releases_only_jobs_that_hold_resources_for_a_pod_that_cannot_start(
    pods: dict[int, dict[str, Any] | None], observed: dict[str, Any], is_released: bool
) -> None:
    cluster = half_started()
    for index, fields in pods.items():
        if fields is None:
            del cluster.pods[f"j-{index}"]
        else:
            cluster.update_pod(index, **fields)
    cluster.observed = observed
    cluster.reconcile()
    cluster.advance(900).reconcile()
    released = cluster.status.pending is not None and cluster.status.pending.releases == 1
    assert released == is_released
    assert all(pod.is_being_deleted for pod in cluster.pods.values()) == is_released


def test_run_that_waits_for_a_replacement_is_released_too() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.evict(1).reconcile_until_stable()
    cluster.update_pod(1, waiting=UNSCHEDULABLE).reconcile()
    assert (cluster.status.phase, cluster.status.reason) == ("Restarting", "Unschedulable")
    cluster.advance(900).reconcile_until_stable()
    assert sorted(cluster.pods) == ["j-1"], "the evicted pod is kept, and the training one is released"
    assert (cluster.status.phase, cluster.status.restarts.disruptions) == ("Restarting", 1)
    cluster.advance(60).reconcile_until_stable()
    assert sorted(cluster.pods) == ["j-0", "j-1", "j-1-r"]
    for index in (0, 1):
        cluster.make_ready(index)
    cluster.reconcile_until_stable()
    assert (cluster.status.phase, cluster.status.reason, cluster.status.restarts.total) == ("Running", None, 1)


def test_single_pod_that_holds_a_node_is_released() -> None:
    cluster = SimulatedCluster(nodes=1)
    cluster.reconcile_until_stable()
    cluster.update_pod(0, waiting=NO_IMAGE, node="node-0").reconcile()
    cluster.advance(900).reconcile_until_stable()
    assert cluster.pods == {}
    assert cluster.status.reason == "ImagePullBackOff"


def test_clock_starts_again_when_the_pod_starts() -> None:
    cluster = half_started().update_pod(1, waiting=UNSCHEDULABLE)
    cluster.reconcile()
    cluster.advance(800).update_pod(1, waiting=None, node="node-1").reconcile()
    assert cluster.status.pending is None
    cluster.update_pod(1, waiting=NO_IMAGE).reconcile()
    cluster.advance(899).reconcile()
    assert len(cluster.pods) == 2
    assert not any(pod.is_being_deleted for pod in cluster.pods.values())


def test_zero_lets_pods_wait_for_ever() -> None:
    cluster = half_started(pendingTimeoutSeconds=0).update_pod(1, waiting=UNSCHEDULABLE)
    cluster.reconcile()
    assert cluster.advance(1e7).reconcile().actions == ()
    assert cluster.status.pending is None


def release(cluster: SimulatedCluster) -> float:
    """Let the job's second pod wait until the pods are released; the seconds until they are created again."""
    cluster.reconcile_until_stable()
    cluster.update_pod(0, node="node-0").update_pod(1, waiting=UNSCHEDULABLE).reconcile()
    plan = cluster.advance(60).reconcile_until_stable()
    pause = plan.requeue_after or 0
    cluster.advance(pause)
    return pause


def test_pauses_grow_and_the_job_fails_at_its_limit() -> None:
    cluster = SimulatedCluster(pendingTimeoutSeconds=60, pendingRetryLimit=9)
    pauses = [release(cluster) for _ in range(9)]
    for pause, middle in zip(pauses, [30, 60, 120, 240, 480, 960, 1800, 1800, 1800], strict=True):
        assert middle / 2 <= pause <= middle * 3 / 2
    release(cluster)
    assert cluster.status.phase == "Failed"
    assert (cluster.status.reason, cluster.pods) == ("PendingRetryLimitExceeded", {})
    assert cluster.message(ConditionType.FAILED) == (
        "runPolicy.pendingRetryLimit: the pods were created again 9 times and still could not start. Pod j-1 cannot be "
        "scheduled: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu. "
        "Remove the cause and apply the job again; it resumes from its newest checkpoint."
    )


def test_releases_are_counted_in_a_row() -> None:
    cluster = SimulatedCluster(pendingTimeoutSeconds=60, pendingRetryLimit=1)
    for _ in range(3):
        release(cluster)
        cluster.run_all_pods()
        assert cluster.status.pending is None
        cluster.set_run_policy(pendingTimeoutSeconds=60, pendingRetryLimit=1, suspend=True).reconcile_until_stable()
        cluster.set_run_policy(pendingTimeoutSeconds=60, pendingRetryLimit=1)


def test_suspension_ends_the_pause() -> None:
    cluster = SimulatedCluster(pendingTimeoutSeconds=60)
    cluster.reconcile_until_stable()
    cluster.update_pod(0, node="node-0").update_pod(1, waiting=UNSCHEDULABLE).reconcile()
    cluster.advance(60).reconcile_until_stable()
    cluster.set_run_policy(suspend=True).reconcile_until_stable()
    cluster.set_run_policy().reconcile_until_stable()
    assert sorted(cluster.pods) == ["j-0", "j-1"]


def test_failure_of_a_pod_is_not_lost_when_its_job_is_released() -> None:
    cluster = half_started(backoffLimit=3).update_pod(1, waiting=UNSCHEDULABLE)
    cluster.reconcile()
    cluster.advance(900).fail(0).reconcile()
    assert cluster.status.restarts.failures == 1


def vanish(cluster: SimulatedCluster, index: int) -> Pod:
    """Remove a pod, as the API server does at once with a pod that is not bound to a node."""
    pod = cluster.pods.pop(cluster.current_pod(index).name)
    cluster.observed = {"vanished_pods": (pod,)}
    return pod


def test_pods_that_vanish_before_they_run_are_counted_and_backed_off() -> None:
    cluster = SimulatedCluster(pendingRetryLimit=3)
    cluster.reconcile_until_stable()
    pauses = []
    while cluster.status.phase != "Failed":
        vanish(cluster, 1)
        plan = cluster.reconcile()
        cluster.observed = {}
        cluster.reconcile_until_stable()
        if cluster.status.pending is not None and cluster.status.pending.retry_time is not None:
            assert cluster.pods == {}
            pauses.append((parse_timestamp(cluster.status.pending.retry_time) - cluster.now).total_seconds())
            cluster.advance(pauses[-1]).reconcile_until_stable()
        assert plan.status.restarts.total == 0
    assert len(pauses) == 2, "the first deletion is answered at once"
    assert 30 <= pauses[0] <= 90 <= pauses[1] + 30
    assert cluster.status.reason == "PendingRetryLimitExceeded"
    assert "Pod j-1 was deleted by another client before all pods of the job were ready." in cluster.message(
        ConditionType.FAILED
    )


def test_pod_that_is_deleted_while_it_starts_is_counted_once() -> None:
    cluster = SimulatedCluster()
    cluster.reconcile_until_stable()
    cluster.delete(1).reconcile()
    cluster.reconcile()
    assert cluster.status.pending is not None
    assert (cluster.status.pending.releases, cluster.status.restarts.total) == (1, 0)
    cluster.run_all_pods()
    assert cluster.status.pending is None


def test_pods_that_the_operator_deleted_have_not_vanished() -> None:
    cluster = half_started(pendingTimeoutSeconds=60).update_pod(1, waiting=UNSCHEDULABLE)
    cluster.reconcile()
    cluster.advance(60).reconcile()
    released = tuple(cluster.pods.values())
    cluster.pods.clear()
    cluster.observed = {"vanished_pods": released}
    cluster.reconcile()
    assert cluster.status.pending is not None
    assert cluster.status.pending.releases == 1


class SharedNodes:
    """Two jobs of two pods on nodes with room for a number of pods, and their scheduler, which starts any pod that fits."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.jobs = [SimulatedCluster(), SimulatedCluster()]
        self.jobs[1].uid = "other-uid"
        self.running_since: dict[int, Any] = {}
        self.finished: list[int] = []

    def schedule(self) -> None:
        """Bind pods in turn, one of each job, so that each job gets half of its pods if it can."""
        used = sum(bool(pod.node) and not pod.is_finished for job in self.jobs for pod in job.pods.values())
        for index in (0, 1):
            for job in self.jobs:
                pod = job.pods.get(f"j-{index}")
                if pod is None or pod.node or pod.is_finished:
                    continue
                if used < self.room:
                    used += 1
                    job.pods[pod.name] = replace(pod, node="node", phase="Running", waiting=None)
                else:
                    job.pods[pod.name] = replace(pod, waiting=UNSCHEDULABLE)

    def run(self) -> None:
        """The pods of a job are ready together, and complete after ten minutes."""
        for number, job in enumerate(self.jobs):
            pods = list(job.pods.values())
            if len(pods) == 2 and all(pod.node and pod.phase == "Running" for pod in pods):
                since = self.running_since.setdefault(number, job.now)
                for pod in pods:
                    job.update_pod(pod.index, ready=True)
                if job.now - since >= timedelta(minutes=10):
                    job.succeed(0).succeed(1)
            if job.status.phase == "Succeeded" and number not in self.finished:
                self.finished.append(number)

    def pass_time(self) -> None:
        for job in self.jobs:
            job.reconcile()
            job.pods = {name: pod for name, pod in job.pods.items() if not pod.is_being_deleted}
        self.schedule()
        self.run()
        for job in self.jobs:
            job.advance(5)


@pytest.mark.parametrize("room", [2, 3])
def test_two_jobs_on_nodes_for_one_of_them_finish_one_after_the_other(room: int) -> None:
    shared = SharedNodes(room)
    for _ in range(2000):
        shared.pass_time()
        if len(shared.finished) == 2:
            break
    assert sorted(shared.finished) == [0, 1]
    assert all(job.status.restarts.total == 0 for job in shared.jobs)
    if room == 2:
        assert any(event.reason == "PodsReleased" for job in shared.jobs for event in job.events), (
            "each job got one pod at first"
        )
