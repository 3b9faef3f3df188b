"""Build the Kubernetes objects of a job, as dictionaries in the form of the API server. All functions are pure."""

from __future__ import annotations

from typing import Any

from finetune_operator.api import FineTuneJob
from finetune_operator.builders.event import JobReference, build_event, build_event_series
from finetune_operator.builders.network_policy import build_network_policy
from finetune_operator.builders.placement import Placement, merge_placement
from finetune_operator.builders.pod import Peer, build_pod
from finetune_operator.builders.pod_group import build_pod_group
from finetune_operator.builders.service import build_service
from finetune_operator.builders.workload import (
    PriorityClass,
    adoption_obstacle,
    adoption_patch,
    build_workload,
    build_workload_spec,
    workload_hash,
    workload_name,
)
from finetune_operator.settings import Settings

__all__ = [
    "JobReference", "Peer", "Placement", "PriorityClass", "adoption_obstacle", "adoption_patch", "build_event",
    "build_event_series", "build_job_resources", "build_network_policy", "build_pod", "build_pod_group", "build_service",
    "build_workload", "build_workload_spec", "merge_placement", "render", "workload_hash", "workload_name",
]  # fmt: skip


def render(job: FineTuneJob, settings: Settings | None = None) -> list[dict[str, Any]]:
    """Build all objects of a job in the order of their creation; the last ones are one Pod per node."""
    settings = settings or Settings()
    pods = [build_pod(job, index, settings) for index in range(job.spec.workers.nodes)]
    workload = [build_workload(job, settings, None)] if job.queue_name is not None else []
    return [*workload, build_service(job.metadata.namespace), *build_job_resources(job, settings), *pods]


def build_job_resources(job: FineTuneJob, settings: Settings) -> list[dict[str, Any]]:
    """Build the objects of a job that must exist before its pods: its NetworkPolicy and its PodGroup, if it has them."""
    optional = (build_network_policy(job, settings), build_pod_group(job))
    return [body for body in optional if body is not None]
