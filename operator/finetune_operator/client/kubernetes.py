"""The only module that talks to Kubernetes: few verbs, plain dictionaries, a limit on every call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from finetune_operator.api import GROUP, PLURAL, VERSION
from finetune_operator.controller.informer_cache import JobKey, ListSnapshot

JOBS = f"/apis/{GROUP}/{VERSION}"
CORE = "/api/v1"
EVENTS = "/apis/events.k8s.io/v1"
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
PATHS = {"Service": f"{CORE}/services", "ConfigMap": f"{CORE}/configmaps", "Pod": f"{CORE}/pods", "Event": f"{EVENTS}/events"}

Body = dict[str, Any]


class ApiError(Exception):
    """The API server answered with an error; `status` is HTTP's, `message` its own sentence."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message

    @property
    def is_refusal(self) -> bool:
        """Whether the request itself was refused, so that the same one will not do soon."""
        return 400 <= self.status < 500 and self.status not in (401, 404, 408, 409, 429)


class KubernetesClient:
    """A connection to the API server. Raises ApiError, and what aiohttp raises when there is no answer."""

    def __init__(
        self,
        client: ApiClient,
        connections: int = 32,
        timeout: float = 30.0,
        on_request: Callable[[str, str, int], None] = lambda _verb, _resource, _status: None,
    ) -> None:
        self._client = client
        self._limit = asyncio.Semaphore(connections)
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._on_request = on_request

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()

    async def create(self, body: Body) -> Body:
        """Create an object of a kind in `PATHS`; 409 if one of that name exists."""
        return await self._request("POST", _path(PATHS[body["kind"]], body["metadata"]["namespace"]), body)

    async def owner_of(self, kind: str, namespace: str, name: str) -> str:
        """UID of an object's controller, empty if it has none; 404 if there is no such object."""
        path = _path(PATHS[kind], namespace, name)
        body = await self._request("GET", path, accept=METADATA_ONLY)
        owners = body["metadata"].get("ownerReferences") or ()
        return next((owner["uid"] for owner in owners if owner.get("controller")), "")

    async def delete_pod(self, namespace: str, name: str, uid: str, force: bool = False) -> None:
        """Delete a pod if it is still this one."""
        options: Body = {"preconditions": {"uid": uid}} | ({"gracePeriodSeconds": 0} if force else {})
        await self._delete(_path(f"{CORE}/pods", namespace, name), options)

    async def delete_job(self, key: JobKey, uid: str) -> None:
        """Delete a job and, in the background, all that it owns."""
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        await self._delete(_path(f"{JOBS}/{PLURAL}", *key), options)

    async def patch_status(self, key: JobKey, version: int, patch: Body) -> Body:
        """Merge into a job's status if the job still is at this resourceVersion; 409 if it is not."""
        body = {"metadata": {"resourceVersion": str(version)}, "status": patch}
        path = _path(f"{JOBS}/{PLURAL}", *key) + "/status"
        return await self._request("PATCH", path, body, content_type="application/merge-patch+json")

    async def secret_exists(self, namespace: str, name: str) -> bool:
        """Whether there is such a Secret. Its content is not asked for."""
        try:
            await self._request("GET", _path(f"{CORE}/secrets", namespace, name), accept=METADATA_ONLY)
        except ApiError as error:
            if error.status == 404:
                return False
            if error.status != 403:  # who may not look lets the pods start: the kubelet will say what is missing
                raise
        return True

    async def list_jobs(self, namespace: str | None) -> ListSnapshot:
        """The jobs of a namespace, or of all."""
        return await self._list(f"{JOBS}/{PLURAL}", namespace, {})

    async def list_pods(self, namespace: str | None, label: str) -> ListSnapshot:
        """The pods that have a label."""
        return await self._list(f"{CORE}/pods", namespace, {"labelSelector": label})

    async def pods_of(self, key: JobKey, label: str) -> tuple[ListSnapshot, list[Body]]:
        """All pods whose label has the job's name as value, as they are at this moment and not in a cache of the server."""
        query = urlencode({"labelSelector": f"{label}={key.name}"})
        body = await self._request("GET", f"{_path(f'{CORE}/pods', key.namespace)}?{query}")
        pods = body.get("items") or []
        return ListSnapshot(int(body["metadata"]["resourceVersion"]), frozenset(pod["metadata"]["uid"] for pod in pods)), pods

    async def _list(self, prefix: str, namespace: str | None, query: dict[str, str]) -> ListSnapshot:
        path = f"{_path(prefix, namespace)}?{urlencode(query | {'resourceVersion': '0'})}"
        body = await self._request("GET", path, accept=METADATA_LIST)
        uids = frozenset(item["metadata"]["uid"] for item in body.get("items") or ())
        return ListSnapshot(int(body["metadata"]["resourceVersion"]), uids)

    async def _delete(self, path: str, options: Body) -> None:
        try:
            await self._request("DELETE", path, options)
        except ApiError as error:
            # Gone already, or replaced by another of the same name: either way this one is deleted.
            if error.status not in (404, 409):
                raise

    async def _request(
        self, verb: str, path: str, body: Body | None = None, accept: str = "application/json", content_type: str = ""
    ) -> Body:
        headers = {"Accept": accept, "Content-Type": content_type or "application/json", "User-Agent": "finetune-operator"}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, verb, body)
        status, resource = 0, _resource(path)
        try:
            # The limit on one request begins when there is a connection for it.
            async with self._limit:
                response = await self._client.rest_client.request(
                    verb, self._client.configuration.host + path, headers, body, _request_timeout=self._timeout
                )
                status, text = response.status, await response.read()
        finally:
            self._on_request(verb, resource, status)
        answer = _decode(text)
        if status >= 400:
            raise ApiError(status, str(answer.get("reason", "")), str(answer.get("message", text[:500])))
        return answer


async def connect() -> ApiClient:
    """A client for the cluster this process runs in, else for the one kubeconfig names."""
    configuration = Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration, persist_config=False)
    return ApiClient(configuration)


def _decode(text: bytes) -> Body:
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _path(prefix: str, namespace: str | None, *rest: str) -> str:
    """`prefix` ends with the resource, which the namespace stands before."""
    root, resource = prefix.rsplit("/", 1)
    parts = ["namespaces", quote(namespace), resource] if namespace else [resource]
    return "/".join([root, *parts, *(quote(part) for part in rest)])


def _resource(path: str) -> str:
    """For the metric: the resource, without names."""
    parts = path.split("?")[0].split("/")
    if "namespaces" not in parts:
        return parts[-1]
    after = parts[parts.index("namespaces") + 2 :]
    return "/".join([after[0], *after[2:]])
