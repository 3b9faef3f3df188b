"""The node monitor: when it lists the nodes, and since when a node is not ready."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.support.simulated_cluster import NOON

from finetune_operator.client.errors import ApiError
from finetune_operator.client.types import NodeState
from finetune_operator.controller import node_monitor
from finetune_operator.controller.node_monitor import NodeMonitor
from finetune_operator.reconcile import ObservedNodes, Pod


class Nodes:
    """Lists nodes, and counts the requests; `wall` and `monotonic` are its clocks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.states = [NodeState("node-0", True, True), NodeState("node-1", False, False)]
        self.requests, self.seconds = 0, 1000.0
        self.error: ApiError | None = None
        monkeypatch.setattr(node_monitor.time, "monotonic", lambda: self.seconds)
        client: Any = self
        self.monitor = NodeMonitor(client, lambda: self.now)

    @property
    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds - 1000)

    async def list_nodes(self) -> list[NodeState]:
        self.requests += 1
        if self.error is not None:
            raise self.error
        return self.states


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    return Nodes(monkeypatch)


def pod(**fields: Any) -> Pod:
    defaults: dict[str, Any] = {"node": "node-1", "phase": "Running", "created": NOON - timedelta(minutes=1)}
    return Pod("j-1", "uid", "job-uid", 1, **(defaults | fields))


LOST = pod(node_lost_since=NOON)


@pytest.mark.parametrize(
    ("name", "candidate", "is_listed"),
    [
        ("marked by Kubernetes", LOST, True),
        ("marked a moment after its creation", pod(created=NOON, node_lost_since=NOON), True),
        ("not ready for long", pod(), True),
        ("pending for long", pod(phase="Pending"), True),
        ("just created", pod(created=NOON), False),
        ("ready", pod(ready=True), False),
        ("finished", pod(phase="Failed"), False),
        ("not scheduled", pod(node="", phase="Pending"), False),
    ],
)
async def test_lists_nodes_only_if_a_pod_looks_lost(nodes: Nodes, name: str, candidate: Pod, is_listed: bool) -> None:
    observed = await nodes.monitor.observe([pod(ready=True), candidate])
    assert (observed is not None, nodes.requests) == (is_listed, int(is_listed)), name


async def test_remembers_since_when_a_node_is_not_ready(nodes: Nodes) -> None:
    expected = ObservedNodes({"node-1": NOON}, frozenset({"node-0"}), has_ready_worker=True)
    for seconds, requests in ((0, 1), (3, 1), (9, 2), (60, 3)):
        nodes.seconds = 1000 + seconds
        assert await nodes.monitor.observe([LOST]) == expected
        assert nodes.requests == requests, f"after {seconds} s"
    assert nodes.monitor.may_be_lost(pod())
    assert not nodes.monitor.may_be_lost(pod(node="node-0"))


async def test_forgets_after_a_pause_in_which_the_node_may_have_returned(nodes: Nodes) -> None:
    await nodes.monitor.observe([LOST])
    nodes.seconds += 3600
    observed = await nodes.monitor.observe([LOST])
    assert observed is not None
    assert observed.not_ready_since == {"node-1": NOON + timedelta(hours=1)}


async def test_sees_that_no_worker_is_ready(nodes: Nodes) -> None:
    nodes.states = [NodeState("control-plane", True, False), NodeState("node-1", False, False)]
    observed = await nodes.monitor.observe([LOST])
    assert observed is not None
    assert (observed.has_ready_worker, observed.ready) == (False, {"control-plane"})


async def test_without_permission_it_asks_once_and_relies_on_the_pods(nodes: Nodes) -> None:
    nodes.error = ApiError(403, "Forbidden", "no")
    for _ in range(2):
        assert await nodes.monitor.observe([LOST]) is None
    assert nodes.requests == 1
    assert nodes.monitor.may_be_lost(LOST)
    assert not nodes.monitor.may_be_lost(pod())


async def test_other_errors_fail_the_reconcile_so_that_it_is_retried(nodes: Nodes) -> None:
    nodes.error = ApiError(500, "InternalError", "etcd")
    with pytest.raises(ApiError):
        await nodes.monitor.observe([LOST])
