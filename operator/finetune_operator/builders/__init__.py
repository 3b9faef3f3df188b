"""Build the Kubernetes objects of a job, as dictionaries in the form of the API server. All functions are pure."""

from __future__ import annotations

from typing import Any

from finetune_operator.api import FineTuneJob
from finetune_operator.builders.event import JobReference, event
from finetune_operator.builders.job_resources import config_map, service
from finetune_operator.builders.pod import pod
from finetune_operator.settings import Settings

__all__ = ["JobReference", "config_map", "event", "pod", "render", "service"]


def render(job: FineTuneJob, settings: Settings | None = None) -> list[dict[str, Any]]:
    """Build all objects of a job in the order of their creation: Service, ConfigMap, and one Pod per node."""
    settings = settings or Settings()
    pods = [pod(job, index, settings) for index in range(job.spec.workers.nodes)]
    return [service(job), config_map(job), *pods]
