"""A cluster in miniature: it keeps what plans write and plays the kubelet, so that tests read as stories."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

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
    reconcile,
)
from finetune_trainer.protocol.outcome import EXIT_POLICIES, Outcome, Reason

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Killed(Exception):
    """The operator was killed in the middle of a pass."""


def document(nodes: int = 2, **run_policy: Any) -> dict[str, Any]:
    """A small valid job named j; keywords are its run policy."""
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
    """The same, read."""
    return FineTuneJob.model_validate(document(nodes, **run_policy))


class SimulatedCluster:
    """One job and its pods. `seen` are keywords of `Seen` that every pass gets on top."""

    def __init__(self, nodes: int = 2, **run_policy: Any) -> None:
        self.job: FineTuneJob | None = job(nodes, **run_policy)
        self.status = JobStatus()
        self.pods: dict[str, Pod] = {}
        self.now = NOON
        self.generation = 1
        self.seen: dict[str, Any] = {}
        self.notes: list[Event] = []
        self.created: list[str] = []
        self.job_deleted = False
        self.lives: float = float("inf")  # writes until the operator is killed
        self._uids = 0

    def set_policy(self, **run_policy: Any) -> SimulatedCluster:
        """The user edits runPolicy."""
        assert self.job is not None
        self.job = job(self.job.spec.workers.nodes, **run_policy)
        self.generation += 1
        return self

    def tick(self, seconds: float) -> SimulatedCluster:
        """Time goes by."""
        self.now += timedelta(seconds=seconds)
        return self

    def look(self) -> Plan:
        """What a pass would decide now."""
        return reconcile(
            ObservedState(
                name="j",
                uid="job-uid",
                generation=self.generation,
                status=self.status,
                now=self.now,
                job=self.job,
                pods=tuple(self.pods.values()),
                **self.seen,
            )
        )

    def one_pass(self) -> Plan:
        """Decide and do: the status first, then the actions, one write after the other."""
        plan = self.look()
        if plan.status != self.status:
            self._write()
            self.status = plan.status
        for action in plan.actions:
            self._write()
            self._do(action)
        self.notes += plan.notes
        return plan

    def settle(self) -> Plan:
        """Pass after pass, deleted pods being removed in between, until nothing changes any more."""
        for _ in range(20):
            plan = self.one_pass()
            gone = [name for name, pod in self.pods.items() if pod.deletion_deadline is not None]
            for name in gone:
                del self.pods[name]
            if not gone and plan.status == self.look().status and not plan.actions:
                return plan
        raise AssertionError("the passes never come to rest")

    def running(self) -> SimulatedCluster:
        """All pods are there and ready."""
        self.settle()
        for index in range(len(self.pods)):
            self.ready(index)
        self.settle()
        assert self.status.phase == "Running"
        return self

    def change(self, index: int, **fields: Any) -> SimulatedCluster:
        """Something about a pod changes."""
        name = f"j-{index}"
        self.pods[name] = replace(self.pods[name], **fields)
        return self

    def ready(self, index: int) -> SimulatedCluster:
        """The pod is ready."""
        return self.change(index, phase="Running", ready=True, node=f"node-{index}")

    def fail(self, index: int, reason: Reason = Reason.CRASHED, **outcome: Any) -> SimulatedCluster:
        """The pod ends for a reason, which its agent could still tell."""
        text = Outcome(reason=reason, **outcome).model_dump_json(by_alias=True, exclude_none=True)
        ending = TerminatedState(EXIT_POLICIES[reason].exit_code, "Error", text)
        return self.change(index, phase="Failed", ready=False, ending=ending)

    def succeed(self, index: int, **outcome: Any) -> SimulatedCluster:
        """The pod ends well."""
        text = Outcome(reason=Reason.COMPLETE, **outcome).model_dump_json(by_alias=True, exclude_none=True)
        return self.change(index, phase="Succeeded", ready=False, ending=TerminatedState(0, "Completed", text))

    def evict(self, index: int) -> SimulatedCluster:
        """The pod's node is drained."""
        return self.change(index, phase="Failed", ready=False, disruption=ReasonMessage("EvictionByEvictionAPI", "drained"))

    def delete(self, index: int) -> SimulatedCluster:
        """Somebody deletes the pod."""
        return self.change(index, deletion_deadline=self.now + timedelta(seconds=120))

    def condition(self, kind: ConditionType) -> tuple[str, str] | None:
        """(status, reason) of a condition."""
        found = find_condition(self.status.conditions, kind)
        return (found.status, found.reason) if found is not None else None

    def message(self, kind: ConditionType) -> str:
        """The sentence of a condition."""
        found = find_condition(self.status.conditions, kind)
        assert found is not None
        return found.message

    def _write(self) -> None:
        if self.lives <= 0:
            raise Killed
        self.lives -= 1

    def _do(self, action: Action) -> None:
        match action:
            case CreatePod(index) if f"j-{index}" not in self.pods:
                self._uids += 1
                self.created.append(f"j-{index}")
                self.pods[f"j-{index}"] = Pod(
                    f"j-{index}", f"pod-uid-{self._uids}", "job-uid", index, "Pending", created=self.now
                )
            case DeletePod(name, uid, _) if name in self.pods and self.pods[name].uid == uid:
                self.pods[name] = replace(self.pods[name], deletion_deadline=self.now + timedelta(seconds=120))
            case DeleteJob():
                self.job_deleted = True
