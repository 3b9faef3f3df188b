"""Queues of Kueue for tests: a flavor, a ClusterQueue with some CPU, and a LocalQueue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.cluster_jobs import Jobs

QUEUE = "team"
API = "kueue.x-k8s.io/v1beta2"


@contextmanager
def queue(jobs: Jobs, cpu: str, flavor: dict[str, Any] | None = None, checks: list[str] | None = None) -> Iterator[str]:
    """A LocalQueue in the namespace of the jobs, whose ClusterQueue has this much CPU and plenty of memory.

    `flavor` is the spec of its ResourceFlavor, `checks` are its admission checks. The jobs are deleted at the end.
    """
    name = f"{jobs.namespace}-{QUEUE}"
    quotas = [{"name": "cpu", "nominalQuota": cpu}, {"name": "memory", "nominalQuota": "64Gi"}]
    spec: dict[str, Any] = {
        "namespaceSelector": {},
        "preemption": {"withinClusterQueue": "LowerPriority"},
        "resourceGroups": [{"coveredResources": ["cpu", "memory"], "flavors": [{"name": name, "resources": quotas}]}],
    }
    if checks:
        spec["admissionChecksStrategy"] = {"admissionChecks": [{"name": check} for check in checks]}
    objects: list[dict[str, Any]] = [
        {"kind": "ResourceFlavor", "metadata": {"name": name}, "spec": flavor or {}},
        {"kind": "ClusterQueue", "metadata": {"name": name}, "spec": spec},
        {"kind": "LocalQueue", "metadata": {"name": QUEUE, "namespace": jobs.namespace}, "spec": {"clusterQueue": name}},
        {"kind": "WorkloadPriorityClass", "metadata": {"name": "low"}, "value": 1},
        {"kind": "WorkloadPriorityClass", "metadata": {"name": "high"}, "value": 1000},
    ]
    apply(jobs, *objects)
    try:
        yield QUEUE
    finally:
        jobs.kubectl("delete", "ftj", "--all", "--wait=true")
        jobs.kubectl("delete", f"localqueue.kueue.x-k8s.io/{QUEUE}")
        jobs.kubectl("delete", f"clusterqueue.kueue.x-k8s.io/{name}", "--timeout=60s")
        jobs.kubectl("delete", f"resourceflavor.kueue.x-k8s.io/{name}", "--timeout=60s")


def apply(jobs: Jobs, *objects: dict[str, Any]) -> None:
    """Apply objects of Kueue's API."""
    items = [{"apiVersion": API, **item} for item in objects]
    jobs.kubectl("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


def workload(jobs: Jobs, name: str) -> dict[str, Any]:
    """The Workload of a job."""
    listed = jobs.kubectl("get", "workloads.kueue.x-k8s.io", f"--selector=finetune-operator.io/job={name}", "--output=json")
    [item] = json.loads(listed)["items"]
    return dict(item)


def workload_condition(jobs: Jobs, name: str, condition_type: str) -> str:
    """The status of a condition of the job's Workload; Unknown if it was never set."""
    return _condition(workload(jobs, name).get("status", {}), condition_type).get("status", "Unknown")


def quota(status: dict[str, Any]) -> tuple[str, str]:
    """Status and reason of a job's condition QuotaReserved."""
    condition = _condition(status, "QuotaReserved")
    return condition.get("status", "Unknown"), condition.get("reason", "")


def _condition(status: dict[str, Any], condition_type: str) -> dict[str, str]:
    return next((dict(item) for item in status.get("conditions", []) if item["type"] == condition_type), {})
