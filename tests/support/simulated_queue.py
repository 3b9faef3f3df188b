"""A simulated cluster in which the job has a queue: it applies the operator's writes to the Workload, and acts as Kueue."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.support.simulated_cluster import SimulatedCluster, document

from finetune_operator.api import FineTuneJob
from finetune_operator.reconcile import (
    Action,
    DeleteWorkload,
    EnsureWorkload,
    SetWorkloadActive,
    UpdateWorkloadStatus,
    Workload,
)

QUEUE = "team-queue"


class QueuedCluster(SimulatedCluster):
    """One job with scheduling.queueName, its pods and its Workload. The hash of its spec is "hash" until a test changes it."""

    def __init__(self, nodes: int = 2, **run_policy: Any) -> None:
        super().__init__(nodes, **run_policy)
        self.nodes, self.spec_hash = nodes, "hash"
        self.workload: Workload | None = None
        self.workloads_created = 0
        self.set_run_policy(**run_policy)

    def set_run_policy(self, **run_policy: Any) -> QueuedCluster:
        """Edit spec.runPolicy; the queue stays."""
        return self.edit(runPolicy=run_policy, scheduling={"queueName": QUEUE})

    def edit(self, **spec: Any) -> QueuedCluster:
        """Edit sections of the spec."""
        body = document(self.nodes)
        body["spec"] |= spec
        self.job = FineTuneJob.model_validate(body)
        self.generation += 1
        self.observed |= {"workload_hash": self.spec_hash, "workload": self.workload}
        return self

    def change_workload(self, **fields: Any) -> QueuedCluster:
        """Set fields of the Workload."""
        assert self.workload is not None
        return self._store(replace(self.workload, resource_version=self.workload.resource_version + 1, **fields))

    def admit(self) -> QueuedCluster:
        """Admit the job, as Kueue does when quota is free."""
        assert self.workload is not None
        workload = self.workload
        for condition_type in ("Evicted", "Preempted"):
            if workload.is_true(condition_type):
                workload = workload.with_condition(condition_type, "False", "QuotaReserved", "", self.now)
        workload = workload.with_condition("QuotaReserved", "True", "QuotaReserved", "", self.now)
        workload = workload.with_condition("Admitted", "True", "Admitted", "", self.now)
        return self._store(replace(workload, cluster_queue="gpus", flavors=("h100",)))

    def reject(self, reason: str, message: str) -> QueuedCluster:
        """Leave the job in its queue, with Kueue's explanation."""
        assert self.workload is not None
        return self._store(self.workload.with_condition("QuotaReserved", "False", reason, message, self.now))

    def evict_workload(self, reason: str = "Preempted", message: str = "Preempted to accommodate a workload") -> QueuedCluster:
        """Ask the job to give its quota back."""
        assert self.workload is not None
        return self._store(self.workload.with_condition("Evicted", "True", reason, message, self.now))

    def end_pods(self) -> QueuedCluster:
        """The pods that are being deleted have terminated."""
        self.pods = {name: pod for name, pod in self.pods.items() if not pod.is_being_deleted}
        return self

    def workload_condition(self, condition_type: str) -> tuple[str, str] | None:
        """(status, reason) of a condition of the Workload; None if it was never set."""
        assert self.workload is not None
        condition = self.workload.condition(condition_type)
        return (condition.status, condition.reason) if condition is not None else None

    def _store(self, workload: Workload | None) -> QueuedCluster:
        self.workload = workload
        self.observed["workload"] = workload
        return self

    def _apply(self, action: Action) -> None:
        match action:
            case EnsureWorkload():
                self._ensure()
            case SetWorkloadActive(_, active):
                self.change_workload(active=active, deactivated_by_job=not active)
            case UpdateWorkloadStatus():
                assert self.workload is not None
                assert action.resource_version == self.workload.resource_version
                released: dict[str, Any] = {"cluster_queue": "", "flavors": ()} if action.releases_quota else {}
                seconds = action.past_execution_seconds
                self.change_workload(conditions=action.conditions, past_execution_seconds=seconds, **released)
            case DeleteWorkload():
                self._store(None)
            case _:
                super()._apply(action)

    def _ensure(self) -> None:
        if self.workload is not None:
            self.change_workload(spec_hash=self.spec_hash)
            return
        self.workloads_created += 1
        name, uid = "finetunejob-j-12345", f"workload-uid-{self.workloads_created}"
        self._store(Workload(name, uid, "job-uid", 1, QUEUE, self.spec_hash, resource_version=1))
