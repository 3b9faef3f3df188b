"""Build the Kubernetes objects of a job, as dictionaries in the form of the API server. All functions are pure."""

from __future__ import annotations

from typing import Any

from finetune_operator.api import FineTuneJob
from finetune_operator.builders.event import JobReference, build_event
from finetune_operator.builders.job_resources import build_config_map, build_service
from finetune_operator.builders.pod import build_pod
from finetune_operator.settings import Settings

__all__ = ["JobReference", "build_config_map", "build_event", "build_pod", "build_service", "render"]


def render(job: FineTuneJob, settings: Settings | None = None) -> list[dict[str, Any]]:
    """Build all objects of a job in the order of their creation: Service, ConfigMap, and one Pod per node."""
    settings = settings or Settings()
    pods = [build_pod(job, index, settings) for index in range(job.spec.workers.nodes)]
    return [build_service(job), build_config_map(job), *pods]
