"""A fake Kubernetes client that kills the operator before or after one of its writes."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from tests.support.fake_kubernetes import FakeKubernetesClient, ReconcilerHarness

from finetune_operator.client.types import JobKey

MAX_RECONCILES = 40


class OperatorKilled(BaseException):
    """The operator's process has ended. No handler of errors catches this, as none runs after a SIGKILL."""


class KillingClient(FakeKubernetesClient):
    """Kills the operator at its write number `kill_at`, which takes effect only if `takes_effect` is set.

    After that every request fails until `revive`, because requests of a dead process are not sent.
    """

    def __init__(self, kill_at: float = float("inf"), takes_effect: bool = False) -> None:
        super().__init__()
        self.kill_at, self.takes_effect, self.writes, self.is_dead = kill_at, takes_effect, 0, False

    def revive(self) -> None:
        """Let a new process of the operator send requests."""
        self.is_dead, self.kill_at = False, float("inf")

    async def create(self, body: dict[str, Any]) -> dict[str, Any]:
        return await self._write(super().create(body))

    async def delete_pod(self, namespace: str, name: str, uid: str, grace_seconds: int | None = None) -> None:
        await self._write(super().delete_pod(namespace, name, uid, grace_seconds))

    async def patch_status(self, key: JobKey, resource_version: int, patch: dict[str, Any]) -> dict[str, Any]:
        return await self._write(super().patch_status(key, resource_version, patch))

    async def patch_object(
        self, api_version: str, kind: str, namespace: str, name: str, patch: dict[str, Any], subresource: str = ""
    ) -> dict[str, Any]:
        result: dict[str, Any] = await self._write(super().patch_object(api_version, kind, namespace, name, patch, subresource))
        return result

    async def delete_job(self, key: JobKey, uid: str) -> None:
        await self._write(super().delete_job(key, uid))
        self.objects.clear()  # the garbage collector deletes what the job owns

    async def _write(self, request: Awaitable[Any]) -> Any:
        self.writes += 1
        if self.is_dead or (self.writes == self.kill_at and not self.takes_effect):
            self.is_dead = True
            request.close()  # type: ignore[attr-defined]
            raise OperatorKilled
        result = await request
        if self.writes == self.kill_at:
            self.is_dead = True
            raise OperatorKilled
        return result


class KilledOperator(ReconcilerHarness):
    """An operator that is started again when it was killed, beside a kubelet that removes the pods it deletes."""

    client: KillingClient

    def __init__(self, kill_at: float = float("inf"), takes_effect: bool = False) -> None:
        super().__init__()
        self.client = KillingClient(kill_at, takes_effect)
        self.restart_operator()

    def restart_operator(self, **settings: Any) -> None:
        """Start a new operator process, which creates NetworkPolicies."""
        super().restart_operator(network_policy_peers=[{"podSelector": {}}], **settings)

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
        """Write the status of a pod, as its kubelet does."""
        body["status"] = status
        self.client.bump_version(body)
