"""The Kubernetes client: the only module that sends requests to the API server.

Objects are plain dictionaries, every request has a timeout, and the number of concurrent requests is limited.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from finetune_operator.client.errors import ApiError, NotLeaderError, decode, error_of
from finetune_operator.client.paths import CORE, EVENTS, JOBS, LEASES, collection, object_path, resource_of, resource_path
from finetune_operator.client.types import JobKey, ListSnapshot, NodeState

METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
WATCH_SECONDS = 600  # until the API server ends a watch

Body = dict[str, Any]


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
        return await self._request("POST", object_path(collection(body), body["metadata"]["namespace"]), body)

    async def get_object(self, api_version: str, kind: str, namespace: str | None, name: str) -> Body:
        """An object. ApiError 404 if it does not exist."""
        return await self._request("GET", object_path(resource_path(api_version, kind), namespace, name))

    async def patch_object(
        self, api_version: str, kind: str, namespace: str, name: str, patch: Body, subresource: str = ""
    ) -> Body:
        """Apply a merge patch. ApiError 409 if the patch names another resourceVersion than the object has."""
        path = object_path(resource_path(api_version, kind), namespace, name, *filter(None, [subresource]))
        return await self._request("PATCH", path, patch, content_type="application/merge-patch+json")

    async def delete_object(self, api_version: str, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete an object if it still has this UID."""
        await self._delete(object_path(resource_path(api_version, kind), namespace, name), uid)

    async def list_objects(self, api_version: str, kind: str, namespace: str | None, label: str) -> tuple[list[Body], str]:
        """All objects with a label, and the resourceVersion for a watch. ApiError 404 if there is no such API."""
        path = object_path(resource_path(api_version, kind), namespace)
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
        path = f"{object_path(resource_path(api_version, kind), namespace)}?{urlencode(query)}"
        headers = await self._headers("GET", path)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout.total, sock_read=WATCH_SECONDS + 60)
        response = await self._client.rest_client.request(
            "GET", self._client.configuration.host + path, headers, None, _request_timeout=timeout
        )
        if response.status >= 400:
            raise error_of(response.status, await response.read())
        pending = b""
        try:
            async for chunk in response.response.content.iter_any():
                *lines, pending = (pending + chunk).split(b"\n")
                for line in filter(None, lines):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise error_of(int(event["object"].get("code") or 500), json.dumps(event["object"]).encode())
                    yield event["type"], event["object"]
        finally:
            response.response.close()

    async def patch_event(self, namespace: str, name: str, patch: Body) -> None:
        """Apply a merge patch to an event. ApiError 404 if the event has expired."""
        path = object_path(EVENTS, namespace, name)
        await self._request("PATCH", path, patch, content_type="application/merge-patch+json")

    async def controller_uid(self, body: Body) -> str:
        """UID of the object that controls an object in the cluster, or "" if none does. ApiError 404 if it does not exist."""
        path = object_path(collection(body), body["metadata"]["namespace"], body["metadata"]["name"])
        found = await self._request("GET", path, accept=METADATA_ONLY)
        for owner in found["metadata"].get("ownerReferences") or ():
            if owner.get("controller"):
                return str(owner["uid"])
        return ""

    async def delete_pod(self, namespace: str, name: str, uid: str, grace_seconds: int | None = None) -> None:
        """Delete a pod if it still has this UID, with its own grace period by default; 0 does not wait for its node."""
        options = {"gracePeriodSeconds": grace_seconds} if grace_seconds is not None else {}
        await self._delete(object_path(f"{CORE}/pods", namespace, name), uid, **options)

    async def delete_job(self, key: JobKey, uid: str) -> None:
        """Delete a job if it still has this UID; the garbage collector deletes the objects it owns."""
        await self._delete(object_path(JOBS, *key), uid, propagationPolicy="Background")

    async def patch_status(self, key: JobKey, resource_version: int, patch: Body) -> Body:
        """Apply a merge patch to the status of a job. ApiError 409 if the job has another resourceVersion by now."""
        body = {"metadata": {"resourceVersion": str(resource_version)}, "status": patch}
        path = object_path(JOBS, *key) + "/status"
        return await self._request("PATCH", path, body, content_type="application/merge-patch+json")

    async def secret_exists(self, namespace: str, name: str) -> bool:
        """Whether a Secret exists. Requests only its metadata, never its data."""
        try:
            await self._request("GET", object_path(f"{CORE}/secrets", namespace, name), accept=METADATA_ONLY)
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
            body = await self._request("GET", f"{object_path(EVENTS, namespace)}?{query}")
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
            return await self._request("GET", object_path(LEASES, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def create_lease(self, body: Body) -> Body:
        """Create a Lease. ApiError 409 if it exists already."""
        return await self._request("POST", object_path(LEASES, body["metadata"]["namespace"]), body)

    async def replace_lease(self, body: Body) -> Body:
        """Replace a Lease. ApiError 409 if it has another resourceVersion by now."""
        return await self._request("PUT", object_path(LEASES, body["metadata"]["namespace"], body["metadata"]["name"]), body)

    async def list_jobs(self, namespace: str | None) -> ListSnapshot:
        """All jobs of a namespace, or of the cluster if it is None."""
        return await self._list(JOBS, namespace, {})

    async def list_pods(self, namespace: str | None, label: str) -> ListSnapshot:
        """All pods with a label, in a namespace or in the cluster if it is None."""
        return await self._list(f"{CORE}/pods", namespace, {"labelSelector": label})

    async def pods_of(self, key: JobKey, label: str) -> tuple[ListSnapshot, list[Body]]:
        """All pods whose label is the job's name: a consistent read, not one from the API server's watch cache."""
        query = urlencode({"labelSelector": f"{label}={key.name}"})
        body = await self._request("GET", f"{object_path(f'{CORE}/pods', key.namespace)}?{query}")
        return _snapshot(body), body.get("items") or []

    async def _list(self, prefix: str, namespace: str | None, query: dict[str, str]) -> ListSnapshot:
        path = f"{object_path(prefix, namespace)}?{urlencode(query | {'resourceVersion': '0'})}"
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
        status, resource = 0, resource_of(path)
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
            raise error_of(status, text, wait)
        return decode(text)

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


def _node_state(cells: dict[str, Any]) -> NodeState:
    """A row of the table of nodes: STATUS is Ready or NotReady, and SchedulingDisabled if the node is cordoned."""
    states = str(cells["Status"]).split(",")
    roles = str(cells.get("Roles", "")).split(",")
    is_ready = "Ready" in states
    return NodeState(str(cells["Name"]), is_ready, is_ready and len(states) == 1 and "control-plane" not in roles)
