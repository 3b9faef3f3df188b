"""The Kueue Workload of a job: its pods, its queue and its priority."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from finetune_operator import names
from finetune_operator.api import GROUP, KIND, FineTuneJob
from finetune_operator.api.scheduling import PREBUILT_LABEL
from finetune_operator.builders.metadata import build_metadata, spec_hash
from finetune_operator.builders.pod import all_containers, build_pod
from finetune_operator.builders.quantity import parse_quantity
from finetune_operator.settings import Settings

WORKLOAD_API_VERSION = "kueue.x-k8s.io/v1beta2"
JOB_UID_LABEL = "kueue.x-k8s.io/job-uid"
POD_SET = "main"
MAX_NAME_CHARACTERS = 63  # Kueue uses the name as the value of labels
HASH_CHARACTERS = 5


@dataclass(frozen=True, slots=True)
class PriorityClass:
    """A resolved class: `group` is that of WorkloadPriorityClass (Kueue) or PriorityClass (pods)."""

    group: str
    kind: str
    name: str
    value: int


def build_workload(job: FineTuneJob, settings: Settings, priority: PriorityClass | None) -> dict[str, Any]:
    """Build the Workload. Kueue admits all pods of its only pod set, or none."""
    metadata = build_metadata(
        job,
        workload_name(job),
        {JOB_UID_LABEL: job.metadata.uid} if job.metadata.uid else {},
        {names.SPEC_HASH_ANNOTATION: workload_hash(job, settings)},
    )
    return {
        "apiVersion": WORKLOAD_API_VERSION,
        "kind": "Workload",
        "metadata": metadata,
        "spec": build_workload_spec(job, settings, priority),
    }


def build_workload_spec(job: FineTuneJob, settings: Settings, priority: PriorityClass | None) -> dict[str, Any]:
    """Build spec of the Workload."""
    spec: dict[str, Any] = {"queueName": job.queue_name, "podSets": _pod_sets(job, settings)}
    if priority is not None:
        reference = {"group": priority.group, "kind": priority.kind, "name": priority.name}
        spec |= {"priorityClassRef": reference, "priority": priority.value}
    return spec


def workload_name(job: FineTuneJob) -> str:
    """Name of the Workload: unique for each job, so that the next job of the same name does not find the Workload of this one.

    MultiKueue names the Workload of a job that it copies to another cluster.
    """
    if prebuilt := job.metadata.labels.get(PREBUILT_LABEL):
        return prebuilt
    digest = hashlib.sha256(f"{KIND}\n{GROUP}\n{job.metadata.name}\n{job.metadata.uid}".encode()).hexdigest()
    prefix = f"{KIND.lower()}-{job.metadata.name}"[: MAX_NAME_CHARACTERS - 1 - HASH_CHARACTERS]
    return f"{prefix}-{digest[:HASH_CHARACTERS]}"


def workload_hash(job: FineTuneJob, settings: Settings) -> str:
    """Identifies all of the Workload's spec that the operator decides."""
    content = [job.queue_name, job.workload_priority_class, job.metadata.labels.get(PREBUILT_LABEL), _pod_sets(job, settings)]
    return spec_hash(content)


def adoption_patch(job: FineTuneJob, settings: Settings) -> dict[str, Any]:
    """The merge patch with which the job takes a Workload that MultiKueue created for it."""
    metadata = build_workload(job, settings, None)["metadata"]
    return {"metadata": {key: metadata[key] for key in ("labels", "annotations", "ownerReferences") if key in metadata}}


def adoption_obstacle(job: FineTuneJob, settings: Settings, workload: dict[str, Any]) -> str | None:
    """Why the job cannot take a Workload that it did not create; None if it can.

    Its pods would run on the quota of another object, or use more than the Workload has quota for.
    """
    name = workload["metadata"]["name"]
    owners = workload["metadata"].get("ownerReferences") or ()
    other = next((owner for owner in owners if owner["uid"] != job.metadata.uid), None)
    if other is not None:
        return f"Workload {name} belongs to {other['kind']} {other['name']}"
    theirs, ours = (workload.get("spec") or {}).get("podSets") or [], _pod_sets(job, settings)
    pods, nodes = sum(item.get("count", 1) for item in theirs), job.spec.workers.nodes
    if pods != nodes:
        return f"Workload {name} is for {pods} pods, the job for {nodes}"
    requests, own_requests = _requests(theirs), _requests(ours)
    differing = [container for container in requests | own_requests if requests.get(container) != own_requests.get(container)]
    if differing:
        return f"the container {differing[0]} of Workload {name} requests other resources than that of the job"
    return None


def _requests(pod_sets: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The requests of each container by its name; a limit without a request is one."""
    result = {}
    for pod_set in pod_sets:
        for container in all_containers(pod_set["template"]["spec"]):
            resources = container.get("resources") or {}
            amounts = (resources.get("limits") or {}) | (resources.get("requests") or {})
            result[container["name"]] = {name: parse_quantity(amount) for name, amount in amounts.items()}
    return result


def _pod_sets(job: FineTuneJob, settings: Settings) -> list[dict[str, Any]]:
    pod = build_pod(job, 0, settings)
    del pod["spec"]["hostname"]
    metadata = {key: pod["metadata"][key] for key in ("labels", "annotations") if key in pod["metadata"]}
    metadata["labels"] = {key: value for key, value in metadata["labels"].items() if key != names.NODE_RANK_LABEL}
    del metadata["annotations"][names.DOCUMENT_ANNOTATION]  # it decides nothing about admission
    return [{"name": POD_SET, "count": job.spec.workers.nodes, "template": {"metadata": metadata, "spec": pod["spec"]}}]
