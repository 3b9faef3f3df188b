"""runPolicy.keepFailedPods: which failed pods are kept, under which names they are replaced, and that each node has one pod."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace

import pytest
from tests.support.simulated_cluster import NOON, SimulatedCluster, job

from finetune_operator import names
from finetune_operator.api import JobStatus
from finetune_operator.reconcile import (
    CreateJobResources,
    CreatePod,
    DeletePod,
    ObservedState,
    Plan,
    Pod,
    TerminatedState,
    is_retained,
    reconcile,
)
from finetune_trainer.protocol.outcome import Reason


def fail_and_recover(cluster: SimulatedCluster, index: int) -> SimulatedCluster:
    """Fail the current pod of a node and let its replacement run."""
    cluster.advance(1000).fail(index).reconcile_until_stable()
    cluster.make_ready(index).reconcile_until_stable()
    assert cluster.status.phase == "Running"
    return cluster


def test_replacement_runs_next_to_failed_pod() -> None:
    cluster = SimulatedCluster().run_all_pods()
    plan = cluster.advance(1000).fail(1).reconcile()
    assert plan.actions == (CreateJobResources(may_exist=True), CreatePod(1, 2, is_alternate=True, peer="j-0")), (
        "without waiting for the failed pod to disappear"
    )
    assert plan.status.retained_pods == ["j-1"]
    assert (cluster.pods["j-1"].phase, cluster.pods["j-1-r"].phase) == ("Failed", "Pending")
    assert cluster.status.workers.summary == "1/2"
    cluster.make_ready(1).reconcile_until_stable()
    assert (cluster.status.phase, cluster.status.workers.summary) == ("Running", "2/2")


def test_keeps_only_the_newest_failed_pod_of_each_node() -> None:
    cluster = SimulatedCluster(nodes=2, backoffLimit=10).run_all_pods()
    kept = []
    for index in (1, 1, 0, 1):
        fail_and_recover(cluster, index)
        kept.append({name: pod.phase for name, pod in sorted(cluster.pods.items())})
    assert kept == [
        {"j-0": "Running", "j-1": "Failed", "j-1-r": "Running"},
        {"j-0": "Running", "j-1": "Running", "j-1-r": "Failed"},
        {"j-0": "Failed", "j-0-r": "Running", "j-1": "Running", "j-1-r": "Failed"},
        {"j-0": "Failed", "j-0-r": "Running", "j-1": "Failed", "j-1-r": "Running"},
    ]
    assert cluster.status.retained_pods == ["j-0", "j-1"]
    assert (cluster.status.restarts.failures, cluster.status.counted_terminated_pods) == (4, [])


def test_keeps_the_newest_of_two_pods_that_were_created_within_one_second() -> None:
    cluster = SimulatedCluster(backoffLimit=1).run_all_pods()
    for _ in range(2):
        cluster.fail(0).reconcile_until_stable()
        if cluster.status.phase != "Failed":
            cluster.make_ready(0).reconcile_until_stable()
    assert cluster.status.reason == "BackoffLimitExceeded"
    assert list(cluster.pods) == ["j-0-r"]


@pytest.mark.parametrize(
    ("keep", "while_running", "after_success", "after_failure"),
    [
        ("UntilFinished", ["j-0", "j-1", "j-1-r"], ["j-0", "j-1-r"], ["j-0-r", "j-1"]),
        ("Always", ["j-0", "j-1", "j-1-r"], ["j-0", "j-1", "j-1-r"], ["j-0-r", "j-1"]),
        ("Never", ["j-0", "j-1"], ["j-0", "j-1"], ["j-0"]),
    ],
)
def test_keeps_failed_pods(keep: str, while_running: list[str], after_success: list[str], after_failure: list[str]) -> None:
    cluster = fail_and_recover(SimulatedCluster(keepFailedPods=keep).run_all_pods(), 1)
    assert sorted(cluster.pods) == while_running
    cluster.succeed(0).succeed(1).reconcile_until_stable()
    assert cluster.status.phase == "Succeeded"
    assert sorted(cluster.pods) == after_success

    cluster = fail_and_recover(SimulatedCluster(keepFailedPods=keep).run_all_pods(), 1)
    fail_and_recover(cluster, 0)
    cluster.fail(0, Reason.INVALID_DATA).reconcile_until_stable()
    assert cluster.status.phase == "Failed"
    finished = {name for name, pod in cluster.pods.items() if pod.is_finished}
    assert finished == set(after_failure), "their logs explain the failure"
    assert cluster.advance(1000).reconcile_until_stable().actions == ()


@pytest.mark.parametrize("incident", ["deleted", "trainer failed next to a living sidecar"])
def test_pod_that_does_not_stop_by_itself_is_not_kept(incident: str) -> None:
    cluster = SimulatedCluster().run_all_pods()
    if incident == "deleted":
        cluster.delete(1)
    else:
        cluster.update_pod(1, ready=False, terminated=TerminatedState(1, "Error"), has_unfinished_sidecar=True)
    cluster.reconcile_until_stable()
    assert sorted(cluster.pods) == ["j-0", "j-1"]
    assert cluster.status.retained_pods == []


def test_pod_is_replaced_when_it_has_stopped() -> None:
    """The kubelet reports the end of the trainer container a moment before the end of its pod."""
    cluster = SimulatedCluster().run_all_pods()
    cluster.advance(1000).update_pod(1, ready=False, terminated=TerminatedState(1, "Error"))
    assert cluster.reconcile().actions == ()
    assert (cluster.status.phase, cluster.status.restarts.failures) == ("Restarting", 1)
    assert cluster.reconcile().actions == ()
    cluster.update_pod(1, phase="Failed")
    assert cluster.reconcile().actions == (CreateJobResources(may_exist=True), CreatePod(1, 2, is_alternate=True, peer="j-0"))
    assert (cluster.status.retained_pods, cluster.status.restarts.failures) == (["j-1"], 1)
    cluster.make_ready(1).reconcile_until_stable()
    assert sorted(cluster.pods) == ["j-0", "j-1", "j-1-r"]
    assert cluster.status.phase == "Running"
    cluster.advance(1000).update_pod(1, ready=False, terminated=TerminatedState(1, "Error")).reconcile()
    cluster.update_pod(1, phase="Failed").reconcile_until_stable()
    assert cluster.status.retained_pods == ["j-1-r"]
    assert {name: pod.phase for name, pod in cluster.pods.items()} == {"j-0": "Running", "j-1-r": "Failed", "j-1": "Pending"}


def test_pod_that_is_lost_while_it_stops_is_replaced() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.update_pod(1, ready=False, terminated=TerminatedState(1, "Error")).reconcile()
    cluster.delete(1).reconcile_until_stable()
    assert sorted(cluster.pods) == ["j-0", "j-1"]
    assert cluster.status.restarts.total == 1


def test_suspension_deletes_current_pods_and_keeps_failed_ones() -> None:
    cluster = fail_and_recover(SimulatedCluster().run_all_pods(), 1)
    cluster.set_run_policy(suspend=True).reconcile_until_stable()
    assert list(cluster.pods) == ["j-1"]
    cluster.set_run_policy().run_all_pods()
    assert sorted(cluster.pods) == ["j-0", "j-1", "j-1-r"]
    assert cluster.status.restarts.total == 1


def test_kept_pod_that_someone_deletes_is_not_counted() -> None:
    cluster = fail_and_recover(SimulatedCluster().run_all_pods(), 1)
    before = cluster.status
    del cluster.pods["j-1"]
    assert cluster.reconcile_until_stable().actions == ()
    assert cluster.status == before
    fail_and_recover(cluster, 1)
    assert sorted(cluster.pods) == ["j-0", "j-1", "j-1-r"]


def test_deletes_second_pod_of_a_node() -> None:
    cluster = fail_and_recover(SimulatedCluster().run_all_pods(), 1)
    cluster.pods["j-1"] = Pod("j-1", "stale", "job-uid", 1, "Pending", created=cluster.now)  # by an operator with an old status
    assert cluster.reconcile().actions == (DeletePod("j-1", "stale"),)
    cluster.reconcile_until_stable()
    assert (cluster.status.phase, cluster.status.restarts.total) == ("Running", 1)


def test_names_of_replacements_belong_to_no_other_job() -> None:
    first = {name for index in range(3) for name in names.pod_names("a", index)}
    second = {name for index in range(3) for name in names.pod_names("a-1", index)}
    assert not first & second


@dataclass
class Operator:
    """One of several operators: its view of the job and the pods, which may be old."""

    status: JobStatus
    version: int
    pods: tuple[Pod, ...]


class SharedState:
    """One job that several operators reconcile: names are unique, and only the newest version of the job can be written."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.job = job(2, backoffLimit=1000)
        self.now = NOON
        self.status, self.version = JobStatus(), 1
        self.pods: dict[str, Pod] = {}
        self.created = 0
        self.operators = [Operator(self.status, self.version, ()) for _ in range(3)]

    def step(self) -> None:
        """Something happens: an operator gets news, reconciles or dies halfway; a pod starts, fails or disappears."""
        operator = self.random.choice(self.operators)
        match self.random.randrange(9):
            case 0:
                operator.status, operator.version = self.status, self.version
            case 1:
                operator.pods = tuple(self.pods.values())
            case 2 | 3 | 4:
                self.reconcile(operator, writes=self.random.choice([1, 2, 3, 100]))
            case 5:
                self.change_pod("Pending", phase="Running", ready=True)
            case 6:
                self.change_pod("Running", phase="Failed", ready=False, terminated=TerminatedState(1, "Error"))
            case 7:
                self.change_pod("Running", ready=False, terminated=TerminatedState(1, "Error"))
            case 8:
                self.pods = {name: pod for name, pod in self.pods.items() if not pod.is_being_deleted}
                self.now += (NOON - NOON.replace(hour=11)) / 60

    def change_pod(self, old_phase: str, **fields: object) -> None:
        candidates = [pod for pod in self.pods.values() if pod.phase == old_phase]
        if candidates:
            pod = self.random.choice(candidates)
            self.pods[pod.name] = replace(pod, **fields)  # type: ignore[arg-type]

    def plan(self, operator: Operator) -> Plan:
        retained = tuple(pod for pod in operator.pods if is_retained(operator.status, pod))
        current = tuple(pod for pod in operator.pods if not is_retained(operator.status, pod))
        return reconcile(
            ObservedState("j", "job-uid", 1, operator.status, self.now, self.job, pods=current, retained_pods=retained)
        )

    def reconcile(self, operator: Operator, writes: int) -> None:
        """One reconcile as the reconciler does it; the operator dies after a number of writes and starts again."""
        plan = self.plan(operator)
        if plan.needs_consistent_read:
            operator.pods = tuple(self.pods.values())  # a consistent read
            plan = self.plan(operator)
        if plan.status != operator.status:
            if operator.version != self.version:
                return
            self.version += 1
            self.status, operator.status, operator.version = plan.status, plan.status, self.version
            writes -= 1
        for action in plan.actions[:writes]:
            match action:
                case CreatePod(index, _, alternate):
                    self.create(names.pod_name("j", index, is_alternate=alternate), index)
                case DeletePod(name, uid, _) if name in self.pods and self.pods[name].uid == uid:
                    if self.pods[name].phase == "Running":
                        self.pods[name] = replace(self.pods[name], deletion_deadline=self.now)
                    else:
                        del self.pods[name]

    def create(self, name: str, index: int) -> None:
        if name not in self.pods:
            self.created += 1
            self.pods[name] = Pod(name, f"uid-{self.created}", "job-uid", index, "Pending", created=self.now)


@pytest.mark.parametrize("seed", range(20))
def test_concurrent_operators_never_create_two_pods_for_a_node(seed: int) -> None:
    shared = SharedState(seed)
    for _ in range(400):
        shared.step()
        live = Counter(pod.index for pod in shared.pods.values() if not pod.has_stopped)
        assert not live or max(live.values()) == 1, shared.pods
        assert len(shared.pods) <= 4
    assert shared.status.restarts.failures > 3, "the pods of the test failed several times"
