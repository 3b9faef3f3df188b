"""A simulated cluster for policy tests: it applies plans to pods in memory and takes the role of the kubelet."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_operator import names
from finetune_operator.api import FineTuneJob, JobStatus
from finetune_operator.api.conditions import ConditionType, find_condition
from finetune_operator.reconcile import (
    Action,
    CreatePod,
    DeleteJob,
    DeletePod,
    Event,
    ObservedState,
    Plan,
    Pod,
    ReasonMessage,
    TerminatedState,
    is_retained,
    reconcile,
)
from finetune_trainer.protocol.outcome import EXIT_POLICIES, Outcome, Reason

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GRACE_PERIOD = timedelta(seconds=120)
MAX_RECONCILES = 20


class OperatorKilled(Exception):
    """The operator was killed during a reconcile."""


def document(nodes: int = 2, **run_policy: Any) -> dict[str, Any]:
    """A small valid document of the job `j` with the given run policy."""
    return {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "j", "namespace": "team", "uid": "job-uid"},
        "spec": {
            "model": {"source": "hf://meta/llama"},
            "data": {"train": [{"source": "s3://data/train.jsonl"}]},
            "checkpoint": {"storage": "s3://out/j"},
            "training": {"batchSize": 8 * nodes, "microBatchSize": 4},
            "workers": {"nodes": nodes},
            "runPolicy": run_policy,
        },
    }


def job(nodes: int = 2, **run_policy: Any) -> FineTuneJob:
    """The validated `document`."""
    return FineTuneJob.model_validate(document(nodes, **run_policy))


class SimulatedCluster:
    """One job and its pods.

    `observed` overrides fields of the ObservedState of every reconcile, and `created` are the host names of the created pods.
    """

    def __init__(self, nodes: int = 2, **run_policy: Any) -> None:
        self.job: FineTuneJob | None = job(nodes, **run_policy)
        self.status = JobStatus()
        self.pods: dict[str, Pod] = {}
        self.now = NOON
        self.generation = 1
        self.observed: dict[str, Any] = {}
        self.events: list[Event] = []
        self.created: list[str] = []
        self.uid = "job-uid"
        self.job_deleted = False
        self.writes_until_killed: float = float("inf")
        self._pods_created = 0

    def set_run_policy(self, **run_policy: Any) -> SimulatedCluster:
        """Edit spec.runPolicy, as a user would."""
        assert self.job is not None
        self.job = job(self.job.spec.workers.nodes, **run_policy)
        self.generation += 1
        return self

    def edit_workers(self, *, suspend: bool = False, **workers: Any) -> SimulatedCluster:
        """Edit spec.workers, as a user would."""
        assert self.job is not None
        self.generation += 1
        body = document(self.job.spec.workers.nodes, suspend=suspend)
        body["metadata"]["generation"] = self.generation
        body["spec"]["workers"] |= workers
        self.job = FineTuneJob.model_validate(body)
        return self

    def advance(self, seconds: float) -> SimulatedCluster:
        """Advance the clock."""
        self.now += timedelta(seconds=seconds)
        return self

    def plan(self) -> Plan:
        """The plan for the current state; nothing is applied."""
        return reconcile(
            ObservedState(
                name="j",
                uid=self.uid,
                generation=self.generation,
                status=self.status,
                now=self.now,
                job=self.job,
                pods=tuple(pod for pod in self.pods.values() if not is_retained(self.status, pod)),
                retained_pods=tuple(pod for pod in self.pods.values() if is_retained(self.status, pod)),
                **self.observed,
            )
        )

    def reconcile(self) -> Plan:
        """Reconcile once: write the status, then apply the actions one by one."""
        plan = self.plan()
        if plan.status != self.status:
            self._count_write()
            self.status = plan.status
        for action in plan.actions:
            self._count_write()
            self._apply(action)
        self.events += plan.events
        return plan

    def reconcile_until_stable(self) -> Plan:
        """Reconcile, and remove deleted pods after each reconcile, until nothing changes. Returns the last plan."""
        for _ in range(MAX_RECONCILES):
            plan = self.reconcile()
            deleted = [name for name, pod in self.pods.items() if pod.is_being_deleted]
            for name in deleted:
                del self.pods[name]
            if not deleted and plan.status == self.plan().status and not plan.actions:
                return plan
        raise AssertionError(f"the job is not stable after {MAX_RECONCILES} reconciles")

    def run_all_pods(self) -> SimulatedCluster:
        """Reconcile until all pods are ready and the job is running."""
        self.reconcile_until_stable()
        assert self.job is not None
        for index in range(self.job.spec.workers.nodes):
            self.make_ready(index)
        self.reconcile_until_stable()
        assert self.status.phase == "Running"
        return self

    def update_pod(self, index: int, **fields: Any) -> SimulatedCluster:
        """Set fields of the current pod of a node."""
        name = self.current_pod(index).name
        self.pods[name] = replace(self.pods[name], **fields)
        return self

    def current_pod(self, index: int) -> Pod:
        """The pod of a node that is not kept for its log only."""
        [pod] = [pod for pod in self.pods.values() if pod.index == index and not is_retained(self.status, pod)]
        return pod

    def make_ready(self, index: int) -> SimulatedCluster:
        """Make a pod ready."""
        return self.update_pod(index, phase="Running", ready=True, node=f"node-{index}")

    def fail(self, index: int, reason: Reason = Reason.CRASHED, **outcome: Any) -> SimulatedCluster:
        """Fail a pod with a termination message."""
        message = Outcome(reason=reason, **outcome).model_dump_json(by_alias=True, exclude_none=True)
        terminated = TerminatedState(EXIT_POLICIES[reason].exit_code, "Error", message)
        return self.update_pod(index, phase="Failed", ready=False, terminated=terminated)

    def succeed(self, index: int, **outcome: Any) -> SimulatedCluster:
        """Complete a pod with a termination message."""
        message = Outcome(reason=Reason.COMPLETE, **outcome).model_dump_json(by_alias=True, exclude_none=True)
        terminated = TerminatedState(0, "Completed", message)
        return self.update_pod(index, phase="Succeeded", ready=False, terminated=terminated)

    def evict(self, index: int) -> SimulatedCluster:
        """Evict a pod, as a drain of its node does."""
        return self.update_pod(index, phase="Failed", ready=False, disruption=ReasonMessage("EvictionByEvictionAPI", "drained"))

    def delete(self, index: int) -> SimulatedCluster:
        """Delete a pod, as another client would."""
        return self.update_pod(index, deletion_deadline=self.now + GRACE_PERIOD)

    def condition(self, condition_type: ConditionType) -> tuple[str, str] | None:
        """(status, reason) of a condition; None if it was never set."""
        condition = find_condition(self.status.conditions, condition_type)
        return (condition.status, condition.reason) if condition is not None else None

    def message(self, condition_type: ConditionType) -> str:
        """The message of a condition."""
        condition = find_condition(self.status.conditions, condition_type)
        assert condition is not None
        return condition.message

    def _count_write(self) -> None:
        if self.writes_until_killed <= 0:
            raise OperatorKilled
        self.writes_until_killed -= 1

    def _apply(self, action: Action) -> None:
        match action:
            case CreatePod(index, nodes, alternate) if (
                name := names.pod_name("j", index, is_alternate=alternate)
            ) not in self.pods:
                self._pods_created += 1
                uid = f"pod-uid-{self._pods_created}"
                self.created.append(names.pod_hostname("j", index))
                assert self.job is not None
                revision, generation = self.job.revision, self.job.metadata.generation
                self.pods[name] = Pod(
                    name, uid, "job-uid", index, "Pending", created=self.now, revision=revision, generation=generation,
                    nodes=nodes,
                )  # fmt: skip
            case DeletePod(name, uid) if name in self.pods and self.pods[name].uid == uid:
                self.pods[name] = replace(self.pods[name], deletion_deadline=self.now + GRACE_PERIOD)
            case DeleteJob():
                self.job_deleted = True
