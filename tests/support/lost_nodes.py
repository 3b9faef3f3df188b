"""Lost nodes of the development cluster, and the leader of the operator, which may run on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.devcluster.session import Cluster
from tests.support.installation import NAMESPACE, RELEASE
from tests.support.operator_faults import operator_pods
from tests.support.waiting import wait_until


@contextmanager
def leader_on_other_node(cluster: Cluster, node: str) -> Iterator[None]:
    """Keep the operator away from a node while its leader is chosen, so that the test is about the node's other pods."""
    cluster.kubectl("cordon", node)
    try:
        for pod in operator_pods(cluster):  # the standby too: it may be on the same node
            if pod["spec"].get("nodeName") == node:
                cluster.kubectl(f"--namespace={NAMESPACE}", "delete", "pod", pod["metadata"]["name"], "--wait=true")
        wait_until(lambda: leader_node(cluster) not in ("", node), "the leader is on the other node", seconds=60)
    finally:
        cluster.kubectl("uncordon", node)
    yield


def spread_operator(cluster: Cluster) -> None:
    """Move the standby to another node than that of the leader, which it leaves when it has to."""
    wait_until(lambda: bool(leader(cluster)), "a replica leads", seconds=60)
    nodes = {pod["spec"].get("nodeName") for pod in operator_pods(cluster)}
    if len(nodes) > 1:
        return
    leading = leader(cluster)["metadata"]["name"]
    for pod in operator_pods(cluster):
        if pod["metadata"]["name"] != leading:
            cluster.kubectl(f"--namespace={NAMESPACE}", "delete", "pod", pod["metadata"]["name"], "--wait=true")
    cluster.kubectl(f"--namespace={NAMESPACE}", "rollout", "status", "deployment", "finetune-operator", "--timeout=60s")
    assert len({pod["spec"]["nodeName"] for pod in operator_pods(cluster)}) == 2, "replicas prefer different nodes"


def leader(cluster: Cluster) -> dict[str, Any]:
    """The pod of the leader; empty while no replica leads."""
    lease = json.loads(cluster.kubectl(f"--namespace={NAMESPACE}", "get", "lease", RELEASE, "--output=json"))
    holder = lease["spec"].get("holderIdentity", "").rpartition("_")[0]
    return next((pod for pod in operator_pods(cluster) if pod["metadata"]["name"] == holder), {})


def leader_node(cluster: Cluster) -> str:
    """The node of the leader; empty while no replica leads."""
    return str(leader(cluster).get("spec", {}).get("nodeName", ""))


def node_is_ready(cluster: Cluster, node: str) -> bool:
    """Whether Kubernetes reports a node as ready."""
    conditions = json.loads(cluster.kubectl("get", "node", node, "--output=json"))["status"]["conditions"]
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
