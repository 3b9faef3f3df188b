"""A fake Kubernetes client for controller tests: names, owners, resourceVersions and conflicts, but no controllers."""

from __future__ import annotations

from typing import Any

from tests.support.simulated_cluster import NOON, document

from finetune_operator.client.errors import ApiError
from finetune_operator.client.types import JobKey, ListSnapshot, NodeState
from finetune_operator.controller.informer_cache import InformerCache
from finetune_operator.controller.job_state import JobStates
from finetune_operator.controller.metrics import Metrics
from finetune_operator.controller.reconciler import Reconciler
from finetune_operator.settings import Settings

KEY = JobKey("team", "j")
CREATED = "2026-01-01T12:00:00Z"


def job_body(resource_version: int, generation: int = 1, uid: str = "job-uid", **spec: Any) -> dict[str, Any]:
    """A FineTuneJob object of the API server; keywords are sections of its spec."""
    body = document()
    body["metadata"] |= {
        "uid": uid,
        "resourceVersion": str(resource_version),
        "generation": generation,
        "creationTimestamp": CREATED,
    }
    body["spec"] |= spec
    return body


def pod_body(resource_version: int, uid: str = "pod-uid", **status: Any) -> dict[str, Any]:
    """A Pod object of the API server; keywords are fields of its status."""
    return {
        "metadata": {
            "name": "j-0",
            "namespace": "team",
            "uid": uid,
            "resourceVersion": str(resource_version),
            "creationTimestamp": CREATED,
            "labels": {"finetune-operator.io/job": "j", "finetune-operator.io/node-rank": "0"},
        },
        "status": status,
    }


def conflict(reason: str) -> ApiError:
    """An error response with the status 409."""
    return ApiError(409, reason, reason)


class FakeKubernetesClient:
    """Objects by (kind, name), and a log of all writes.

    `create_errors` maps a kind to the error that a create request for it gets, `fail_next` the name of a method to the error
    that its next call raises, `quota` a kind to the number of objects that a ResourceQuota allows. `warnings` are the Warning
    events about pods by UID, `nodes` those of the cluster, and `time` is the clock of the API server.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.log: list[str] = []
        self.secrets: set[str] = set()
        self.create_errors: dict[str, ApiError] = {}
        self.quota: dict[str, int] = {}
        self.warnings: dict[str, list[dict[str, Any]]] = {}
        self.fail_next: dict[str, ApiError] = {}
        self.nodes: list[NodeState] = []
        self.time = CREATED
        self.resource_version = 100
        self.force_deleted: list[str] = []

    def put_job(self, **run_policy: Any) -> dict[str, Any]:
        """Create or edit the job, as a user would."""
        body = document(**run_policy)
        previous = self.objects.get(("FineTuneJob", "j"))
        generation = 1 if previous is None else previous["metadata"]["generation"] + 1
        body["metadata"] |= {"creationTimestamp": CREATED, "generation": generation}
        body["status"] = previous["status"] if previous is not None else {}
        self.objects["FineTuneJob", "j"] = body
        return self.bump_version(body)

    def pod_names(self) -> list[str]:
        """Names of all pods."""
        return [name for kind, name in self.objects if kind == "Pod"]

    async def create(self, body: dict[str, Any]) -> dict[str, Any]:
        kind, name = body["kind"], body["metadata"].get("name", "")
        if kind in self.create_errors:
            raise self.create_errors[kind]
        if kind == "Event":
            self.log.append(f"event {body['reason']}")
            return body
        self._check_quota(kind)  # the API server checks it before the name
        if (kind, name) in self.objects:
            raise conflict("AlreadyExists")
        self.log.append(f"create {kind} {name}")
        body["metadata"] |= {"uid": f"uid-{self.resource_version}", "creationTimestamp": self.time}
        self.objects[kind, name] = body
        return self.bump_version(body)

    def _check_quota(self, kind: str) -> None:
        used = len([name for object_kind, name in self.objects if object_kind == kind])
        if used >= self.quota.get(kind, used + 1):
            raise ApiError(403, "Forbidden", f"{kind} is forbidden: exceeded quota: team, used: count/{kind.lower()}s={used}")

    async def pod_warnings(self, _namespace: str, uid: str) -> list[dict[str, Any]]:
        return self.warnings.get(uid, [])

    async def patch_event(self, _namespace: str, name: str, patch: dict[str, Any]) -> None:
        self.log.append(f"event {name.partition('.')[0]} occurred {patch['series']['count']} times")

    async def controller_uid(self, body: dict[str, Any]) -> str:
        kind, name = body["kind"], body["metadata"]["name"]
        if (kind, name) not in self.objects:
            raise ApiError(404, "NotFound", "gone")
        owners = self.objects[kind, name]["metadata"].get("ownerReferences") or [{"uid": ""}]
        return str(owners[0]["uid"])

    async def delete_pod(self, _namespace: str, name: str, uid: str, grace_seconds: int | None = None) -> None:
        self._fail("delete_pod")
        self.log.append(f"delete Pod {name}")
        body = self.objects.get(("Pod", name))
        if body is not None and body["metadata"]["uid"] == uid:
            self.bump_version(body)["metadata"]["deletionTimestamp"] = self.time
            if grace_seconds == 0:
                self.force_deleted.append(name)

    async def delete_job(self, key: JobKey, _uid: str) -> None:
        self.log.append(f"delete FineTuneJob {key.name}")

    async def get_object(self, _api_version: str, kind: str, _namespace: str | None, name: str) -> dict[str, Any]:
        self._fail(f"get_{kind.lower()}")
        if (kind, name) not in self.objects:
            raise ApiError(404, "NotFound", f"{name} not found")
        return self.objects[kind, name]

    async def patch_object(
        self, api_version: str, kind: str, namespace: str, name: str, patch: dict[str, Any], subresource: str = ""
    ) -> dict[str, Any]:
        body = await self.get_object(api_version, kind, namespace, name)
        expected = patch.get("metadata", {}).pop("resourceVersion", None)
        if expected not in (None, body["metadata"]["resourceVersion"]):
            raise conflict("Conflict")
        self.log.append(f"patch {kind} {name} {subresource}".rstrip())
        self.objects[kind, name] = apply_merge_patch(body, patch)
        return self.bump_version(self.objects[kind, name])

    async def delete_object(self, _api_version: str, kind: str, _namespace: str, name: str, _uid: str) -> None:
        self.log.append(f"delete {kind} {name}")
        self.objects.pop((kind, name), None)

    async def patch_status(self, key: JobKey, resource_version: int, patch: dict[str, Any]) -> dict[str, Any]:
        self._fail("patch_status")
        body = self.objects.get(("FineTuneJob", key.name))
        if body is None:
            raise ApiError(404, "NotFound", "gone")
        if body["metadata"]["resourceVersion"] != str(resource_version):
            raise conflict("Conflict")
        self.log.append("status")
        body["status"] = apply_merge_patch(body["status"], patch)
        return self.bump_version(body)

    async def pods_of(self, key: JobKey, _label: str) -> tuple[ListSnapshot, list[dict[str, Any]]]:
        pods = [body for (kind, _), body in self.objects.items() if kind == "Pod"]
        return ListSnapshot(self.resource_version, frozenset(body["metadata"]["uid"] for body in pods)), pods

    async def list_jobs(self, namespace: str | None) -> ListSnapshot:
        return self._list("FineTuneJob", namespace)

    async def list_pods(self, namespace: str | None, _label: str) -> ListSnapshot:
        return self._list("Pod", namespace)

    async def list_nodes(self) -> list[NodeState]:
        return self.nodes

    async def secret_exists(self, _namespace: str, name: str) -> bool:
        return name in self.secrets

    def _fail(self, method: str) -> None:
        if method in self.fail_next:
            raise self.fail_next.pop(method)

    def _list(self, kind: str, namespace: str | None) -> ListSnapshot:
        uids = set()
        for (object_kind, _), body in self.objects.items():
            if object_kind == kind and namespace in (None, body["metadata"]["namespace"]):
                uids.add(body["metadata"]["uid"])
        return ListSnapshot(self.resource_version, frozenset(uids))

    def bump_version(self, body: dict[str, Any]) -> dict[str, Any]:
        """Give an object the next resourceVersion, as every write does."""
        self.resource_version += 1
        body["metadata"]["resourceVersion"] = str(self.resource_version)
        return body


def apply_merge_patch(old: Any, patch: Any) -> Any:
    """Apply an RFC 7386 merge patch, as the API server does."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = apply_merge_patch(result.get(key), value)
    return result


class ReconcilerHarness:
    """A Reconciler with a fake client; the cache changes only by `sync_cache` and by the reconciler itself."""

    def __init__(self, **settings: Any) -> None:
        self.client = FakeKubernetesClient()
        self.now = NOON
        self.restart_operator(**settings)

    def restart_operator(self, **settings: Any) -> None:
        """Start a new operator process with an empty cache, which writes changed conditions at once."""
        settings = {"progress_write_interval": 0.1} | settings
        self.cache = InformerCache()
        self.states = JobStates()
        self.metrics = Metrics()
        client: Any = self.client
        self.reconciler = Reconciler(
            self.cache, self.states, client, Settings(**settings), self.metrics, clock=lambda: self.now
        )

    def sync_cache(self) -> None:
        """Report all objects to the cache, as up-to-date watches would."""
        uids = {body["metadata"]["uid"] for body in self.client.objects.values()}
        for job in list(self.cache.jobs.values()):
            if job.uid not in uids:
                self.cache.remove_job(job.key, job.uid)
        for key, pod in list(self.cache.all_pods()):
            if pod.uid not in uids:
                self.cache.remove_pod(key, pod.uid)
        for (kind, _), body in self.client.objects.items():
            if kind == "FineTuneJob":
                self.cache.put_job(body)
            elif kind == "Pod":
                self.cache.put_pod(body)

    def make_ready(self, *names: str) -> None:
        """Make pods ready, and sync the cache."""
        for name in names:
            body = self.client.objects["Pod", name]
            body["status"] = {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
            self.client.bump_version(body)
        self.sync_cache()

    async def reconcile(self) -> float | None:
        """Reconcile the job once, and send the recorded events."""
        try:
            return await self.reconciler.reconcile(KEY)
        finally:
            await self.reconciler.events.send_waiting()

    def status(self) -> dict[str, Any]:
        """The status of the job."""
        status: dict[str, Any] = self.client.objects["FineTuneJob", "j"]["status"]
        return status

    def condition(self, condition_type: str) -> dict[str, Any]:
        """A condition of the job."""
        condition: dict[str, Any] = next(item for item in self.status()["conditions"] if item["type"] == condition_type)
        return condition


async def start_job(*, nodes: int = 2, **settings: Any) -> ReconcilerHarness:
    """A harness with a job whose pods were created and are in the cache."""
    harness = ReconcilerHarness(**settings)
    harness.client.put_job(nodes=nodes)
    harness.sync_cache()
    await harness.reconcile()
    harness.sync_cache()
    return harness
