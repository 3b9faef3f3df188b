"""Kills or removes the operator on the development cluster."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Any

from tests.support.devcluster import faults
from tests.support.devcluster.session import Cluster
from tests.support.installation import NAMESPACE
from tests.support.waiting import wait_until

SELECTOR = "--selector=app.kubernetes.io/component=operator"


def operator_pods(cluster: Cluster) -> list[dict[str, Any]]:
    """The pods of the operator."""
    listed = cluster.kubectl("get", "pods", f"--namespace={NAMESPACE}", SELECTOR, "--output=json")
    return list(json.loads(listed)["items"])


def wait_until_replaced(cluster: Cluster, before: Set[str], *, seconds: float = 60) -> None:
    """Wait until none of the operator's pods with these UIDs exists any more."""
    wait_until(
        lambda: not before & {pod["metadata"]["uid"] for pod in operator_pods(cluster)},
        "the earlier pods of the operator are gone",
        seconds=seconds,
    )


def kill_operator(cluster: Cluster) -> None:
    """Kill the processes of the operator's pods with SIGKILL; the kubelet restarts them."""
    for pod in operator_pods(cluster):
        faults.send_signal(faults.container_pids(pod["spec"]["nodeName"], pod["metadata"]["uid"]), signal.SIGKILL)


@contextmanager
def without_operator(cluster: Cluster) -> Iterator[None]:
    """No operator runs inside the block."""
    deployment = f"--namespace={NAMESPACE}", "deployment", "finetune-operator"
    replicas = cluster.kubectl("get", *deployment, "--output=jsonpath={.spec.replicas}")
    cluster.kubectl("scale", *deployment, "--replicas=0")
    cluster.kubectl("wait", f"--namespace={NAMESPACE}", "pod", SELECTOR, "--for=delete", "--timeout=60s")
    try:
        yield
    finally:
        cluster.kubectl("scale", *deployment, f"--replicas={replicas}")
        cluster.kubectl("rollout", "status", *deployment, "--timeout=120s")
