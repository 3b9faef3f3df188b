"""Pods in the network of their nodes find their peers, where a profile allows it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from tests.support.cluster_fixtures import SESSION
from tests.support.cluster_jobs import Jobs, tiny
from tests.support.installation import upgrade

IPC_LOCK = 14  # the number of the capability


@pytest.fixture
def allowed(jobs: Jobs) -> Iterator[Jobs]:
    """Jobs of a namespace whose profile allows what the Pod Security level "restricted" does not."""
    profile = {
        "name": "rdma",
        "namespaces": [jobs.namespace],
        "limits": {"hostNetwork": True, "runAsRoot": True, "capabilities": ["IPC_LOCK"]},
    }
    label = "pod-security.kubernetes.io/enforce"
    jobs.cluster.kubectl("label", "namespace", jobs.namespace, f"{label}=privileged", "--overwrite")
    upgrade(jobs.cluster, f"--set-json=profiles={json.dumps([profile])}")
    try:
        yield jobs
    finally:
        upgrade(jobs.cluster, "--set-json=profiles=[]")


def test_two_pods_in_the_networks_of_their_nodes_train_together(allowed: Jobs) -> None:
    """As root they have the capability that the document asks for, and no other."""
    template = {"hostNetwork": True, "securityContext": {"runAsUser": 0, "capabilities": ["IPC_LOCK"]}}
    job = tiny("hosted", f"s3://finetune/node-network-{SESSION}", nodes=2, steps=60, workers={"template": template})
    name = allowed.apply(job)
    allowed.wait_for_step(name, 5)
    pods = allowed.pods(name)
    addresses = {pod["status"]["podIP"] for pod in pods.values()}
    assert len(addresses) == 2
    assert addresses == {pod["status"]["hostIP"] for pod in pods.values()}
    sets = allowed.kubectl("exec", f"{name}-0", "--", "grep", "^Cap", "/proc/1/status")
    capabilities = {kind: int(value, 16) for kind, value in re.findall(r"Cap(\w+):\s+(\w+)", sets)}
    assert capabilities["Eff"] == capabilities["Bnd"] == 1 << IPC_LOCK
    status = allowed.wait_for_phase(name, "Succeeded", seconds=240)
    assert status["restarts"]["total"] == 0
