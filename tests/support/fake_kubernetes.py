"""An API server as far as the controller knows one: names, owners, resource versions and conflicts."""

from __future__ import annotations

from typing import Any

from tests.support.simulated_cluster import NOON, document

from finetune_operator.client.kubernetes import ApiError
from finetune_operator.controller.informer_cache import InformerCache, JobKey, ListSnapshot
from finetune_operator.controller.metrics import Metrics
from finetune_operator.controller.reconciler import Reconciler
from finetune_operator.settings import Settings

KEY = JobKey("team", "j")
CREATED = "2026-01-01T12:00:00Z"


def conflict(reason: str) -> ApiError:
    return ApiError(409, reason, reason)


class FakeCluster:
    """Objects by (kind, name), every write in `log`. `refuse` maps a kind to the error its creation gets."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.log: list[str] = []
        self.secrets: set[str] = set()
        self.refuse: dict[str, ApiError] = {}
        self.version = 100
        self.forced: list[str] = []

    def put_job(self, **run_policy: Any) -> dict[str, Any]:
        """The user creates or edits the job."""
        body = document(**run_policy)
        old = self.objects.get(("FineTuneJob", "j"))
        body["metadata"] |= {"creationTimestamp": CREATED, "generation": 1 if old is None else 2}
        body["status"] = old["status"] if old is not None else {}
        self.objects["FineTuneJob", "j"] = body
        return self.touch(body)

    def pods(self) -> list[str]:
        return [name for kind, name in self.objects if kind == "Pod"]

    async def create(self, body: dict[str, Any]) -> dict[str, Any]:
        kind, name = body["kind"], body["metadata"].get("name", "")
        if kind in self.refuse:
            raise self.refuse[kind]
        if kind == "Event":
            self.log.append(f"event {body['reason']}")
            return body
        if (kind, name) in self.objects:
            raise conflict("AlreadyExists")
        self.log.append(f"create {kind} {name}")
        body["metadata"] |= {"uid": f"uid-{self.version}", "creationTimestamp": CREATED}
        self.objects[kind, name] = body
        return self.touch(body)

    async def owner_of(self, kind: str, _namespace: str, name: str) -> str:
        owners = self.objects[kind, name]["metadata"].get("ownerReferences") or [{"uid": ""}]
        return str(owners[0]["uid"])

    async def delete_pod(self, _namespace: str, name: str, uid: str, force: bool = False) -> None:
        self.log.append(f"delete Pod {name}")
        body = self.objects.get(("Pod", name))
        if body is not None and body["metadata"]["uid"] == uid:
            self.touch(body)["metadata"]["deletionTimestamp"] = CREATED
            self.forced += [name] if force else []

    async def delete_job(self, key: JobKey, _uid: str) -> None:
        self.log.append(f"delete FineTuneJob {key.name}")

    async def patch_status(self, key: JobKey, version: int, patch: dict[str, Any]) -> dict[str, Any]:
        body = self.objects.get(("FineTuneJob", key.name))
        if body is None:
            raise ApiError(404, "NotFound", "gone")
        if body["metadata"]["resourceVersion"] != str(version):
            raise conflict("Conflict")
        self.log.append("status")
        body["status"] = merged(body["status"], patch)
        return self.touch(body)

    async def pods_of(self, key: JobKey, _label: str) -> tuple[ListSnapshot, list[dict[str, Any]]]:
        pods = [body for (kind, _), body in self.objects.items() if kind == "Pod"]
        return ListSnapshot(self.version, frozenset(body["metadata"]["uid"] for body in pods)), pods

    async def secret_exists(self, _namespace: str, name: str) -> bool:
        return name in self.secrets

    def touch(self, body: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        return body


def merged(old: Any, patch: Any) -> Any:
    """RFC 7386, as the API server does it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


class Setup:
    """A controller on a fake cluster; `watch` shows it what there is."""

    def __init__(self, **settings: Any) -> None:
        self.cluster = FakeCluster()
        self.start(**settings)

    def start(self, **settings: Any) -> None:
        """A new operator process, which knows nothing."""
        self.cache = InformerCache()
        self.metrics = Metrics()
        fake: Any = self.cluster
        self.controller = Reconciler(self.cache, fake, Settings(**settings), self.metrics, clock=lambda: NOON)

    def watch(self) -> None:
        """The watches catch up."""
        uids = {body["metadata"]["uid"] for body in self.cluster.objects.values()}
        for key, pod in list(self.cache.all_pods()):
            if pod.uid not in uids:
                self.cache.drop_pod(key, pod.uid)
        for (kind, _), body in self.cluster.objects.items():
            if kind == "FineTuneJob":
                self.cache.put_job(body)
            elif kind == "Pod":
                self.cache.put_pod(body)

    async def one_pass(self) -> float | None:
        return await self.controller.reconcile(KEY)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.cluster.objects["FineTuneJob", "j"]["status"]
        return status

    def condition(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = next(item for item in self.status()["conditions"] if item["type"] == kind)
        return found
