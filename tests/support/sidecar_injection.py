"""Injects a sidecar into pods as a service mesh does, with a MutatingAdmissionPolicy of the API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.cluster_jobs import Jobs
from tests.support.waiting import wait_until

SIDECAR = "mesh-proxy"
LABELS = {"mesh": "injected"}
"""The label of a pod that gets a sidecar."""
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}

# The sidecar never ends by itself. Its image is that of the trainer, which the cluster has.
INJECTION = f"""
[JSONPatch{{
  op: "add",
  path: "/spec/containers/-",
  value: Object.spec.containers{{
    name: "{SIDECAR}",
    image: object.spec.containers[0].image,
    command: ["sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"],
    securityContext: Object.spec.containers.securityContext{{
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: Object.spec.containers.securityContext.capabilities{{drop: ["ALL"]}}
    }}
  }}
}}]
"""


@contextmanager
def sidecar_injection(jobs: Jobs) -> Iterator[None]:
    """Inject a sidecar into the pods of the namespace that have `LABELS`."""
    name = f"sidecar.{jobs.namespace}"
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "reinvocationPolicy": "Never",
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "objectSelector": {"matchLabels": LABELS},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": jobs.namespace}},
            },
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": INJECTION}}],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name},
    }
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": [policy, binding]})
    jobs.kubectl("apply", "--filename=-", stdin=objects)
    try:
        _wait_until_active(jobs)
        yield
    finally:
        jobs.kubectl("delete", "--filename=-", stdin=objects)


def _wait_until_active(jobs: Jobs, *, seconds: float = 60) -> None:
    """The API server applies a new policy some time after it was created."""
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "labels": LABELS},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "probe", "image": "probe", "securityContext": RESTRICTED}],
        },
    }

    def is_injected() -> bool:
        created = jobs.kubectl("create", "--dry-run=server", "--output=json", "--filename=-", stdin=json.dumps(pod))
        return len(json.loads(created)["spec"]["containers"]) == 2

    wait_until(is_injected, "a sidecar is injected", seconds=seconds)
