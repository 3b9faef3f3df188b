"""A fake Kubernetes client that kills the operator before or after one of its writes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from tests.support.fake_kubernetes import KEY, FakeKubernetesClient, ReconcilerHarness, apply_merge_patch

from finetune_operator.api.conditions import format_timestamp
from finetune_operator.client.types import JobKey
from finetune_operator.controller.job_state import PodContact
from finetune_operator.controller.workqueue import OutdatedError

MAX_RECONCILES = 40
READS = frozenset(
    {"controller_uid", "get_object", "list_jobs", "list_nodes", "list_pods", "pod_warnings", "pods_of", "secret_exists"}
)


class OperatorKilled(BaseException):
    """The operator's process has ended. No handler of errors catches this, as none runs after a SIGKILL."""


class KillingClient(FakeKubernetesClient):
    """Kills the operator at its write number `kill_at`, which takes effect only if `takes_effect` is set.

    Every method that sends requests counts as a write, unless it is one of `READS`. After the kill every write fails until
    `revive`, because requests of a dead process are not sent.
    """

    def __init__(self, kill_at: float = float("inf"), takes_effect: bool = False) -> None:
        super().__init__()
        self.kill_at, self.takes_effect, self.writes, self.is_dead = kill_at, takes_effect, 0, False

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name in READS or name.startswith("_") or not inspect.iscoroutinefunction(value):
            return value
        return partial(self._write, value)

    def revive(self) -> None:
        """Let a new process of the operator send requests."""
        self.is_dead, self.kill_at = False, float("inf")

    async def delete_job(self, key: JobKey, uid: str) -> None:
        await super().delete_job(key, uid)
        self.collect_garbage()

    def collect_garbage(self) -> None:
        """Delete the job and the objects that it owns."""
        job = self.objects.pop(("FineTuneJob", KEY.name))
        for key, body in list(self.objects.items()):
            if job["metadata"]["uid"] in [owner["uid"] for owner in body["metadata"].get("ownerReferences", ())]:
                del self.objects[key]

    async def _write(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self.writes += 1
        if self.is_dead or (self.writes == self.kill_at and not self.takes_effect):
            self.is_dead = True
            raise OperatorKilled
        result = await method(*arguments, **options)
        if self.writes == self.kill_at:
            self.is_dead = True
            raise OperatorKilled
        return result


class KilledOperator(ReconcilerHarness):
    """An operator that is started again when it was killed, beside a kubelet that removes the pods it deletes.

    `silent` are the UIDs of pods that do not answer the operator.
    """

    client: KillingClient

    def __init__(self, kill_at: float = float("inf"), takes_effect: bool = False) -> None:
        super().__init__()
        self.client = KillingClient(kill_at, takes_effect)
        self.silent: set[str] = set()
        self.restart_operator()

    def restart_operator(self, **settings: Any) -> None:
        """Start a new operator process, which creates NetworkPolicies."""
        super().restart_operator(network_policy_peers=[{"podSelector": {}}], **settings)

    def put(self, sections: dict[str, Any], **run_policy: Any) -> None:
        """Create or edit the job, as a user would; `sections` are those of its spec besides the run policy."""
        body = self.client.put_job(**run_policy)
        body["spec"] = apply_merge_patch(body["spec"], sections)

    def advance(self, minutes: float) -> None:
        """Advance all clocks."""
        self.now += timedelta(minutes=minutes)
        self.client.time = format_timestamp(self.now)

    def sync_cache(self) -> None:
        """Report all objects to the cache, also Workloads, and which pods do not answer."""
        super().sync_cache()
        workloads = [body for (kind, _), body in self.client.objects.items() if kind == "Workload"]
        self.cache.replace_workloads(None, workloads)
        self.cache.workload_errors[None] = None
        for job in self.cache.jobs.values():
            self.states.get(job).contacts |= {uid: PodContact(silent_since=-math.inf) for uid in self.silent}

    async def settle(self) -> None:
        """Reconcile until nothing changes any more."""
        for _ in range(MAX_RECONCILES):
            before = self.client.resource_version, len(self.client.objects)
            try:
                self.sync_cache()
                await self.reconcile()
            except OperatorKilled:
                self.client.revive()
                self.restart_operator()
                continue
            except OutdatedError:
                continue
            deleted = [key for key, body in self.client.objects.items() if "deletionTimestamp" in body["metadata"]]
            for key in deleted:
                del self.client.objects[key]
            if before == (self.client.resource_version, len(self.client.objects)):
                return
        raise AssertionError(f"the job is not stable after {MAX_RECONCILES} reconciles")

    def current_pods(self) -> list[dict[str, Any]]:
        """The pods that have not ended, by node."""
        pods = [body for (kind, _), body in self.client.objects.items() if kind == "Pod"]
        pods = [body for body in pods if body.get("status", {}).get("phase") not in ("Succeeded", "Failed")]
        return sorted(pods, key=lambda body: str(body["metadata"]["labels"]["finetune-operator.io/node-rank"]))

    def set_status(self, body: dict[str, Any], **status: Any) -> None:
        """Write the status of an object, as its kubelet or another controller does."""
        body["status"] = status
        self.client.bump_version(body)
