"""Requests of the Kubernetes client and its handling of responses, over HTTP with a fake API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from finetune_operator.client.errors import MAX_RETRY_AFTER, ApiError, NotLeaderError, retry_after
from finetune_operator.client.kubernetes import METADATA_LIST, METADATA_ONLY, TABLE, KubernetesClient
from finetune_operator.client.types import JobKey, ListSnapshot, NodeState

KEY = JobKey("team", "j")
JOBS = "/apis/finetune-operator.io/v1alpha1/namespaces/team/finetunejobs"


class Server:
    """Responds with `status` and `body`, and records the last request."""

    def __init__(self) -> None:
        self.status, self.body, self.delay = 200, {}, 0.0
        self.headers: dict[str, str] = {}
        self.body: Any
        self.method = self.path = self.accept = self.content_type = self.token = ""
        self.query: dict[str, str] = {}
        self.sent: Any = None
        self.by_method: dict[str, tuple[int, Any]] = {}  # status and body of requests with other ones
        self.requests: list[tuple[str, str, int]] = []
        self.port = 0

    async def respond(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.delay)
        self.method, self.path, self.query = request.method, request.path, dict(request.query)
        self.accept, self.content_type = request.headers["Accept"], request.headers["Content-Type"]
        self.token = request.headers.get("Authorization", "")
        self.sent = await request.json() if request.can_read_body else None
        status, body = self.by_method.get(request.method, (self.status, self.body))
        return web.json_response(body, status=status, headers=self.headers)


@asynccontextmanager
async def running_server(request_timeout: float = 5.0) -> AsyncIterator[tuple[Server, KubernetesClient]]:
    server = Server()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.respond)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.port = port
    configuration = Configuration(host=f"http://{host}:{port}", api_key={"BearerToken": "bearer secret"})
    client = KubernetesClient(
        ApiClient(configuration), timeout=request_timeout, on_request=lambda *call: server.requests.append(call)
    )
    try:
        yield server, client
    finally:
        await client.close()
        await runner.cleanup()


POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "j-0", "namespace": "team"}}
KUEUE = "kueue.x-k8s.io/v1beta2"
WORKLOADS = f"/apis/{KUEUE}/namespaces/team/workloads"
WORKLOAD = {"apiVersion": KUEUE, "kind": "Workload", "metadata": {"name": "w", "namespace": "team"}}
NEW_EVENT = {"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "j.1", "namespace": "team"}}
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "j", "namespace": "team"}}
POD_GROUP = {"apiVersion": "scheduling.k8s.io/v1beta1", "kind": "PodGroup", "metadata": {"name": "j", "namespace": "team"}}
POD_PATH = "/api/v1/namespaces/team/pods/j-0"


class Call(NamedTuple):
    """A call of the client, and the request that it sends."""

    name: str
    send: Callable[[KubernetesClient], Awaitable[Any]]
    method: str
    path: str
    body: Any


CALLS = [
    Call("create pod", lambda client: client.create(POD), "POST", "/api/v1/namespaces/team/pods", POD),
    Call(
        "create event",
        lambda client: client.create(NEW_EVENT),
        "POST",
        "/apis/events.k8s.io/v1/namespaces/team/events",
        NEW_EVENT,
    ),
    Call(
        "patch event",
        lambda client: client.patch_event("team", "j.1", {"series": {"count": 2}}),
        "PATCH",
        "/apis/events.k8s.io/v1/namespaces/team/events/j.1",
        {"series": {"count": 2}},
    ),
    Call(
        "delete pod",
        lambda client: client.delete_pod("team", "j-0", "u"),
        "DELETE",
        POD_PATH,
        {"preconditions": {"uid": "u"}},
    ),
    Call(
        "force-delete pod",
        lambda client: client.delete_pod("team", "j-0", "u", grace_seconds=0),
        "DELETE",
        POD_PATH,
        {"preconditions": {"uid": "u"}, "gracePeriodSeconds": 0},
    ),
    Call(
        "delete job",
        lambda client: client.delete_job(KEY, "u"),
        "DELETE",
        f"{JOBS}/j",
        {"preconditions": {"uid": "u"}, "propagationPolicy": "Background"},
    ),
    Call(
        "patch status",
        lambda client: client.patch_status(KEY, 7, {"phase": "Running"}),
        "PATCH",
        f"{JOBS}/j/status",
        {"metadata": {"resourceVersion": "7"}, "status": {"phase": "Running"}},
    ),
    Call("create workload", lambda client: client.create(WORKLOAD), "POST", WORKLOADS, WORKLOAD),
    Call(
        "patch workload",
        lambda client: client.patch_object(KUEUE, "Workload", "team", "w", {"spec": {"active": False}}),
        "PATCH",
        f"{WORKLOADS}/w",
        {"spec": {"active": False}},
    ),
    Call(
        "patch status of workload",
        lambda client: client.patch_object(KUEUE, "Workload", "team", "w", {"status": {}}, "status"),
        "PATCH",
        f"{WORKLOADS}/w/status",
        {"status": {}},
    ),
    Call(
        "delete workload",
        lambda client: client.delete_object(KUEUE, "Workload", "team", "w", "u"),
        "DELETE",
        f"{WORKLOADS}/w",
        {"preconditions": {"uid": "u"}},
    ),
    Call(
        "get priority class",
        lambda client: client.get_object(KUEUE, "WorkloadPriorityClass", None, "high"),
        "GET",
        f"/apis/{KUEUE}/workloadpriorityclasses/high",
        None,
    ),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
async def test_sends_request(call: Call) -> None:
    async with running_server() as (server, client):
        await call.send(client)
        assert (server.method, server.path, server.sent) == (call.method, call.path, call.body)
        assert server.token == "bearer secret"
        content_type = "application/merge-patch+json" if call.method == "PATCH" else "application/json"
        assert server.content_type == content_type


async def test_error_has_reason_and_message_of_server() -> None:
    async with running_server() as (server, client):
        server.status, server.body = 409, {"reason": "AlreadyExists", "message": 'pods "j-0" already exists'}
        with pytest.raises(ApiError, match="already exists") as caught:
            await client.create(POD)
        assert (caught.value.status, caught.value.reason) == (409, "AlreadyExists")
        assert server.requests == [("POST", "pods", 409)]


@pytest.mark.parametrize(
    ("status", "is_rejection"),
    [(400, True), (401, False), (403, True), (404, False), (409, False), (422, True), (429, False), (500, False)],
)
def test_classifies_rejections(status: int, is_rejection: bool) -> None:
    assert ApiError(status, "", "").is_rejection == is_rejection


def test_failing_webhook_is_a_rejection() -> None:
    message = 'Internal error occurred: failed calling webhook "inject.example.com": failed to call webhook: connection refused'
    assert ApiError(500, "InternalError", message).is_rejection


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        pytest.param("7", 7, id="seconds"),
        pytest.param("86400", MAX_RETRY_AFTER, id="a day"),
        pytest.param(None, 0, id="absent"),
        pytest.param("Wed, 21 Oct 2026 07:28:00 GMT", 0, id="date"),
        pytest.param("-1", 0, id="negative"),
    ],
)
async def test_error_has_the_delay_that_the_server_asks_for(header: str | None, seconds: float) -> None:
    async with running_server() as (server, client):
        server.status, server.headers = 429, {"Retry-After": header} if header else {}
        with pytest.raises(ApiError) as caught:
            await client.create(POD)
        assert retry_after(caught.value) == seconds
    assert retry_after(TimeoutError()) == 0


async def test_deleting_absent_object_succeeds() -> None:
    async with running_server() as (server, client):
        server.status = 404
        await client.delete_pod("team", "j-0", "u")
        await client.delete_job(KEY, "u")


@pytest.mark.parametrize(
    ("found", "succeeds"),
    [
        pytest.param((200, "other"), True, id="another pod has the name"),
        pytest.param((404, ""), True, id="no pod has the name any more"),
        pytest.param((200, "u"), False, id="the pod exists: a webhook or the storage refused the deletion"),
    ],
)
async def test_refused_deletion_succeeds_only_if_the_object_is_gone(found: tuple[int, str], succeeds: bool) -> None:
    async with running_server() as (server, client):
        server.by_method = {"DELETE": (409, {"reason": "Conflict"}), "GET": (found[0], {"metadata": {"uid": found[1]}})}
        if succeeds:
            await client.delete_pod("team", "j-0", "u")
        else:
            with pytest.raises(ApiError, match="409 Conflict"):
                await client.delete_pod("team", "j-0", "u")
        assert server.requests == [("DELETE", "pods", 409), ("GET", "pods", found[0])]


async def test_failed_deletion_raises() -> None:
    async with running_server() as (server, client):
        server.status = 500
        with pytest.raises(ApiError):
            await client.delete_pod("team", "j-0", "u")


@pytest.mark.parametrize(("status", "exists"), [(200, True), (404, False), (403, True)])
async def test_checks_secret_without_reading_its_data(status: int, exists: bool) -> None:
    async with running_server() as (server, client):
        server.status = status
        assert await client.secret_exists("team", "s3") == exists
        assert (server.path, server.accept) == ("/api/v1/namespaces/team/secrets/s3", METADATA_ONLY)


async def test_reads_controller_uid() -> None:
    async with running_server() as (server, client):
        server.body = {"metadata": {"ownerReferences": [{"uid": "a"}, {"uid": "b", "controller": True}]}}
        assert await client.controller_uid(SERVICE) == "b"
        server.body = {"metadata": {}}
        assert await client.controller_uid(SERVICE) == ""
        assert await client.controller_uid(POD_GROUP) == ""
        assert server.path == "/apis/scheduling.k8s.io/v1beta1/namespaces/team/podgroups/j"


@pytest.mark.parametrize(("namespace", "path"), [(None, "/api/v1/pods"), ("team", "/api/v1/namespaces/team/pods")])
@pytest.mark.parametrize(("items", "uids"), [(None, set()), ([{"metadata": {"uid": "u"}}], {"u"})])
async def test_lists_metadata_only(namespace: str | None, path: str, items: Any, uids: set[str]) -> None:
    async with running_server() as (server, client):
        server.body = {"metadata": {"resourceVersion": "9"}, "items": items}
        assert await client.list_pods(namespace, "label") == ListSnapshot(9, frozenset(uids))
        assert (server.path, server.accept) == (path, METADATA_LIST)
        assert server.query == {"labelSelector": "label", "resourceVersion": "0"}


async def test_lists_pods_of_one_job() -> None:
    async with running_server() as (server, client):
        pod = {"metadata": {"uid": "u"}}
        server.body = {"metadata": {"resourceVersion": "9"}, "items": [pod]}
        assert await client.pods_of(KEY, "label") == (ListSnapshot(9, frozenset({"u"})), [pod])
        assert (server.path, server.query) == ("/api/v1/namespaces/team/pods", {"labelSelector": "label=j"})


async def test_times_out() -> None:
    async with running_server(request_timeout=0.05) as (server, client):
        server.delay = 0.3
        with pytest.raises(TimeoutError):
            await client.create(POD)
        assert server.requests == [("POST", "pods", 0)]


async def test_error_with_body_that_is_not_a_status_object() -> None:
    async with running_server() as (server, client):
        server.status, server.body = 502, ["bad gateway"]
        with pytest.raises(ApiError, match="bad gateway"):
            await client.create(POD)


async def test_lists_nodes_as_the_table_of_kubectl() -> None:
    async with running_server() as (server, client):
        names = ("Name", "Status", "Roles", "Age", "Version")
        cells = [
            ("node-1", "Ready", "<none>", "1d", "v1.37.2"),
            ("node-2", "NotReady", "<none>", "1d", "v1.37.2"),
            ("node-3", "Ready,SchedulingDisabled", "gpu", "1d", "v1.37.2"),
            ("node-4", "NotReady,SchedulingDisabled", "<none>", "1d", "v1.37.2"),
            ("node-5", "Ready", "control-plane,gpu", "1d", "v1.37.2"),
            ("node-6", "Unknown", "<none>", "1d", "v1.37.2"),
        ]
        server.body = {
            "kind": "Table",
            "columnDefinitions": [{"name": name} for name in names],
            "rows": [{"cells": list(row)} for row in cells],
        }
        assert await client.list_nodes() == [
            NodeState("node-1", True, True),
            NodeState("node-2", False, False),
            NodeState("node-3", True, False),
            NodeState("node-4", False, False),
            NodeState("node-5", True, False),
            NodeState("node-6", False, False),
        ]
        assert (server.method, server.path, server.accept) == ("GET", "/api/v1/nodes", TABLE)
        server.body = {"kind": "Table", "columnDefinitions": [{"name": name} for name in names], "rows": None}
        assert await client.list_nodes() == []


LEASE_PATH = "/apis/coordination.k8s.io/v1/namespaces/system/leases"


async def test_reads_and_writes_leases() -> None:
    lease = {"kind": "Lease", "metadata": {"name": "operator", "namespace": "system", "resourceVersion": "3"}}
    async with running_server() as (server, client):
        server.body = lease
        assert await client.get_lease("system", "operator") == lease
        assert (server.method, server.path) == ("GET", f"{LEASE_PATH}/operator")
        await client.create_lease(lease)
        assert (server.method, server.path, server.sent) == ("POST", LEASE_PATH, lease)
        await client.replace_lease(lease)
        assert (server.method, server.path, server.sent) == ("PUT", f"{LEASE_PATH}/operator", lease)
        server.status, server.body = 404, {"reason": "NotFound", "message": "gone"}
        assert await client.get_lease("system", "operator") is None


async def test_sends_no_write_without_leadership() -> None:
    """Checked when a request has a free connection, because it may have waited long for one."""
    is_leader = True
    async with running_server() as (server, _):
        configuration = Configuration(host=f"http://127.0.0.1:{server.port}")
        client = KubernetesClient(ApiClient(configuration), may_write=lambda: is_leader)
        await client.create(POD)
        is_leader = False
        server.method = ""
        for write in (
            client.create(POD),
            client.delete_pod("team", "j-0", "uid"),
            client.delete_job(KEY, "uid"),
            client.patch_status(KEY, 1, {}),
        ):
            with pytest.raises(NotLeaderError):
                await write
        assert server.method == ""
        server.body = {"metadata": {"resourceVersion": "1"}, "items": []}
        await client.list_jobs(None)
        assert server.method == "GET", "the cache of a standby is kept up to date"
        await client.close()
