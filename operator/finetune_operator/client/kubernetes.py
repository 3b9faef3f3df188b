"""The Kubernetes client: the only module that sends requests to the API server.

Objects are plain dictionaries, every request has a timeout, and the number of concurrent requests is limited.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from finetune_operator.api import GROUP, PLURAL, VERSION
from finetune_operator.client.types import JobKey, ListSnapshot, NodeState

JOBS = f"/apis/{GROUP}/{VERSION}"
CORE = "/api/v1"
EVENTS = "/apis/events.k8s.io/v1"
LEASES = "/apis/coordination.k8s.io/v1/leases"
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
PATHS = {"Service": f"{CORE}/services", "ConfigMap": f"{CORE}/configmaps", "Pod": f"{CORE}/pods", "Event": f"{EVENTS}/events"}
WATCH_SECONDS = 600  # until the API server ends a watch
MAX_ERROR_BYTES = 500  # of a response that is not a Status object
MAX_RETRY_AFTER = 300.0  # seconds; a longer wait would look like an operator that hangs
RETRIABLE_CLIENT_ERRORS = frozenset({401, 404, 408, 409, 429})
WEBHOOK_FAILURE = "failed calling webhook"  # in the message of a 500, which the API server returns for a webhook that fails

Body = dict[str, Any]


class ApiError(Exception):
    """An error response of the API server: HTTP status, and the reason and message of its Status object.

    `retry_after` is the time in seconds that the server asks clients to wait, or 0.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after

    @property
    def is_rejection(self) -> bool:
        """Whether the request itself was rejected, so that an immediate retry would fail too.

        An admission webhook that fails rejects every request of its kind until an administrator repairs it.
        """
        if self.status >= 500:
            return WEBHOOK_FAILURE in self.message
        return self.status >= 400 and self.status not in RETRIABLE_CLIENT_ERRORS


REQUEST_ERRORS = (ApiError, aiohttp.ClientError, TimeoutError)
"""The errors of a request: an error response, or no response."""


def retry_after(error: Exception) -> float:
    """Seconds that an error asks its caller to wait before a retry; 0 if it does not."""
    return error.retry_after if isinstance(error, ApiError) else 0.0


class NotLeaderError(Exception):
    """A write was not sent, because another replica of the operator may be the leader by now."""


class KubernetesClient:
    """A client of the API server.

    Methods raise ApiError for an error response, and aiohttp.ClientError or TimeoutError if there is no response.
    `on_request` is called with verb, resource and status code after each request; the code is 0 without a response.
    Writes raise NotLeaderError while `may_write` returns False.
    """

    def __init__(
        self,
        client: ApiClient,
        connections: int = 32,
        timeout: float = 30.0,
        on_request: Callable[[str, str, int], None] = lambda _verb, _resource, _status: None,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        self._client = client
        self._slots = asyncio.Semaphore(connections)
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._on_request = on_request
        self._may_write = may_write

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def create(self, body: Body) -> Body:
        """Create an object. ApiError 409 if the name exists already."""
        return await self._request("POST", _path(_collection(body), body["metadata"]["namespace"]), body)

    async def get_object(self, api_version: str, kind: str, namespace: str | None, name: str) -> Body:
        """An object of an API group. ApiError 404 if it does not exist."""
        return await self._request("GET", _path(_resource_path(api_version, kind), namespace, name))

    async def patch_object(
        self, api_version: str, kind: str, namespace: str, name: str, patch: Body, subresource: str = ""
    ) -> Body:
        """Apply a merge patch. ApiError 409 if the patch names another resourceVersion than the object has."""
        path = _path(_resource_path(api_version, kind), namespace, name, *filter(None, [subresource]))
        return await self._request("PATCH", path, patch, content_type="application/merge-patch+json")

    async def delete_object(self, api_version: str, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete an object if it still has this UID."""
        await self._delete(_path(_resource_path(api_version, kind), namespace, name), uid)

    async def list_objects(self, api_version: str, kind: str, namespace: str | None, label: str) -> tuple[list[Body], str]:
        """All objects with a label, and the resourceVersion for a watch. ApiError 404 if there is no such API."""
        path = _path(_resource_path(api_version, kind), namespace)
        body = await self._request("GET", f"{path}?{urlencode({'labelSelector': label})}")
        return body.get("items") or [], str(body["metadata"]["resourceVersion"])

    async def watch_objects(
        self, api_version: str, kind: str, namespace: str | None, label: str, resource_version: str
    ) -> AsyncIterator[tuple[str, Body]]:
        """Type (ADDED, MODIFIED, DELETED) and object of each change, until the API server ends the watch.

        Raises ApiError 410 if the resourceVersion is too old.
        """
        query = {
            "labelSelector": label,
            "watch": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        path = f"{_path(_resource_path(api_version, kind), namespace)}?{urlencode(query)}"
        headers = await self._headers("GET", path)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout.total, sock_read=WATCH_SECONDS + 60)
        response = await self._client.rest_client.request(
            "GET", self._client.configuration.host + path, headers, None, _request_timeout=timeout
        )
        if response.status >= 400:
            raise _error(response.status, await response.read())
        pending = b""
        try:
            async for chunk in response.response.content.iter_any():
                *lines, pending = (pending + chunk).split(b"\n")
                for line in filter(None, lines):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _error(int(event["object"].get("code") or 500), json.dumps(event["object"]).encode())
                    yield event["type"], event["object"]
        finally:
            response.response.close()

    async def patch_event(self, namespace: str, name: str, patch: Body) -> None:
        """Apply a merge patch to an event. ApiError 404 if the event has expired."""
        path = _path(PATHS["Event"], namespace, name)
        await self._request("PATCH", path, patch, content_type="application/merge-patch+json")

    async def controller_uid(self, body: Body) -> str:
        """UID of the object that controls an object in the cluster, or "" if none does. ApiError 404 if it does not exist."""
        path = _path(_collection(body), body["metadata"]["namespace"], body["metadata"]["name"])
        found = await self._request("GET", path, accept=METADATA_ONLY)
        for owner in found["metadata"].get("ownerReferences") or ():
            if owner.get("controller"):
                return str(owner["uid"])
        return ""

    async def delete_pod(self, namespace: str, name: str, uid: str, force: bool = False) -> None:
        """Delete a pod if it still has this UID; `force` does not wait for its node."""
        options = {"gracePeriodSeconds": 0} if force else {}
        await self._delete(_path(f"{CORE}/pods", namespace, name), uid, **options)

    async def delete_config_map(self, namespace: str, name: str) -> None:
        """Delete a ConfigMap if it exists."""
        await self._delete(_path(f"{CORE}/configmaps", namespace, name))

    async def delete_job(self, key: JobKey, uid: str) -> None:
        """Delete a job if it still has this UID; the garbage collector deletes the objects it owns."""
        await self._delete(_path(f"{JOBS}/{PLURAL}", *key), uid, propagationPolicy="Background")

    async def patch_status(self, key: JobKey, resource_version: int, patch: Body) -> Body:
        """Apply a merge patch to the status of a job. ApiError 409 if the job has another resourceVersion by now."""
        body = {"metadata": {"resourceVersion": str(resource_version)}, "status": patch}
        path = _path(f"{JOBS}/{PLURAL}", *key) + "/status"
        return await self._request("PATCH", path, body, content_type="application/merge-patch+json")

    async def secret_exists(self, namespace: str, name: str) -> bool:
        """Whether a Secret exists. Requests only its metadata, never its data."""
        try:
            await self._request("GET", _path(f"{CORE}/secrets", namespace, name), accept=METADATA_ONLY)
        except ApiError as error:
            if error.status == 404:
                return False
            if error.status != 403:  # without the permission to check, let the pods start: the kubelet reports a missing Secret
                raise
        return True

    async def pod_warnings(self, namespace: str, uid: str) -> list[Body]:
        """The Warning events about a pod (events.k8s.io/v1); empty without the permission to list events."""
        query = urlencode({"fieldSelector": f"regarding.uid={uid},type=Warning"})
        try:
            body = await self._request("GET", f"{_path(PATHS['Event'], namespace)}?{query}")
        except ApiError as error:
            if error.status != 403:
                raise
            return []
        return body.get("items") or []

    async def list_nodes(self) -> list[NodeState]:
        """All nodes of the cluster; ApiError 403 without the permission.

        Requests the table that kubectl prints: a Node object has many kilobytes, most of them the names of its images.
        """
        table = await self._request("GET", f"{CORE}/nodes?resourceVersion=0&includeObject=None", accept=TABLE)
        columns = [column["name"] for column in table.get("columnDefinitions") or ()]
        return [_node_state(dict(zip(columns, row["cells"], strict=True))) for row in table.get("rows") or ()]

    async def get_lease(self, namespace: str, name: str) -> Body | None:
        """A Lease, or None if it does not exist."""
        try:
            return await self._request("GET", _path(LEASES, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def create_lease(self, body: Body) -> Body:
        """Create a Lease. ApiError 409 if it exists already."""
        return await self._request("POST", _path(LEASES, body["metadata"]["namespace"]), body)

    async def replace_lease(self, body: Body) -> Body:
        """Replace a Lease. ApiError 409 if it has another resourceVersion by now."""
        return await self._request("PUT", _path(LEASES, body["metadata"]["namespace"], body["metadata"]["name"]), body)

    async def list_jobs(self, namespace: str | None) -> ListSnapshot:
        """All jobs of a namespace, or of the cluster if it is None."""
        return await self._list(f"{JOBS}/{PLURAL}", namespace, {})

    async def list_pods(self, namespace: str | None, label: str) -> ListSnapshot:
        """All pods with a label, in a namespace or in the cluster if it is None."""
        return await self._list(f"{CORE}/pods", namespace, {"labelSelector": label})

    async def pods_of(self, key: JobKey, label: str) -> tuple[ListSnapshot, list[Body]]:
        """All pods whose label is the job's name: a consistent read, not one from the API server's watch cache."""
        query = urlencode({"labelSelector": f"{label}={key.name}"})
        body = await self._request("GET", f"{_path(f'{CORE}/pods', key.namespace)}?{query}")
        return _snapshot(body), body.get("items") or []

    async def _list(self, prefix: str, namespace: str | None, query: dict[str, str]) -> ListSnapshot:
        path = f"{_path(prefix, namespace)}?{urlencode(query | {'resourceVersion': '0'})}"
        return _snapshot(await self._request("GET", path, accept=METADATA_LIST))

    async def _delete(self, path: str, uid: str = "", **options: Any) -> None:
        """Delete an object if it exists and, unless `uid` is empty, still has this UID."""
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self._request("DELETE", path, options)
        except ApiError as error:
            if error.status == 404:
                return
            # 409 if another object has taken the name, but also for other reasons, such as the answer of a webhook.
            if error.status != 409 or not uid or await self._uid(path) == uid:
                raise

    async def _uid(self, path: str) -> str:
        """UID of the object at a path, or "" if there is none."""
        try:
            body = await self._request("GET", path, accept=METADATA_ONLY)
        except ApiError as error:
            if error.status == 404:
                return ""
            raise
        return str(body["metadata"]["uid"])

    async def _request(
        self, verb: str, path: str, body: Body | None = None, accept: str = "application/json", content_type: str = ""
    ) -> Body:
        headers = await self._headers(verb, path, body, accept, content_type)
        status, resource = 0, _resource(path)
        try:
            # The timeout starts only when the request has a free slot.
            async with self._slots:
                if verb != "GET" and not self._may_write():
                    raise NotLeaderError(f"{verb} {path} was not sent, because this replica is not the leader")
                response = await self._client.rest_client.request(
                    verb, self._client.configuration.host + path, headers, body, _request_timeout=self._timeout
                )
                status, text = response.status, await response.read()
                wait = response.headers.get("Retry-After", "")
        finally:
            self._on_request(verb, resource, status)
        if status >= 400:
            raise _error(status, text, wait)
        return _decode(text)

    async def _headers(
        self, verb: str, path: str, body: Body | None = None, accept: str = "application/json", content_type: str = ""
    ) -> dict[str, str]:
        headers = {"Accept": accept, "Content-Type": content_type or "application/json", "User-Agent": "finetune-operator"}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, verb, body)
        return headers


async def connect() -> ApiClient:
    """An API client with the in-cluster configuration, or else with the current context of kubeconfig."""
    configuration = Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration, persist_config=False)
    return ApiClient(configuration)


def _snapshot(body: Body) -> ListSnapshot:
    uids = frozenset(item["metadata"]["uid"] for item in body.get("items") or ())
    return ListSnapshot(int(body["metadata"]["resourceVersion"]), uids)


def _error(status: int, text: bytes, wait: str = "") -> ApiError:
    """The error of a response; `wait` is its header Retry-After, which may also be a date, but not from the API server."""
    content = _decode(text)
    message = str(content.get("message", text[:MAX_ERROR_BYTES]))
    seconds = min(float(wait), MAX_RETRY_AFTER) if wait.isdecimal() else 0.0
    return ApiError(status, str(content.get("reason", "")), message, seconds)


def _collection(body: Body) -> str:
    """The path of all objects of the kind of an object."""
    return PATHS.get(body["kind"]) or _resource_path(body["apiVersion"], body["kind"])


def _resource_path(api_version: str, kind: str) -> str:
    """The path of all objects of a kind in an API group; every kind that the operator uses has a regular plural."""
    plural = f"{kind.lower()}es" if kind.endswith("s") else f"{kind.lower()}s"
    return f"/apis/{api_version}/{plural}"


def _node_state(cells: dict[str, Any]) -> NodeState:
    """A row of the table of nodes: STATUS is Ready or NotReady, and SchedulingDisabled if the node is cordoned."""
    states = str(cells["Status"]).split(",")
    roles = str(cells.get("Roles", "")).split(",")
    is_ready = "Ready" in states
    return NodeState(str(cells["Name"]), is_ready, is_ready and len(states) == 1 and "control-plane" not in roles)


def _decode(text: bytes) -> Body:
    """The JSON object in a response; empty if it contains none."""
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _path(prefix: str, namespace: str | None, *rest: str) -> str:
    """The path of a resource; `prefix` ends with the resource name, and the namespace is inserted before it."""
    root, resource = prefix.rsplit("/", 1)
    parts = ["namespaces", quote(namespace), resource] if namespace else [resource]
    return "/".join([root, *parts, *(quote(part) for part in rest)])


def _resource(path: str) -> str:
    """The resource of a path for the request metric, such as `pods` or `finetunejobs/status`."""
    parts = path.split("?")[0].split("/")
    if "namespaces" not in parts:
        return parts[-1]
    after = parts[parts.index("namespaces") + 2 :]
    return "/".join([after[0], *after[2:]])
