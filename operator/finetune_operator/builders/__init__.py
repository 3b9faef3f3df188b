"""From a job to the objects it needs: pure functions, dictionaries as the API server takes them."""

from __future__ import annotations

from typing import Any

from finetune_operator.api import FineTuneJob
from finetune_operator.builders.event import event
from finetune_operator.builders.job_resources import config_map, service
from finetune_operator.builders.pod import pod
from finetune_operator.settings import Settings

__all__ = ["config_map", "event", "pod", "render", "service"]


def render(job: FineTuneJob, settings: Settings | None = None) -> list[dict[str, Any]]:
    """All objects of a job, in the order they are created: Service, ConfigMap, and a Pod for each node."""
    settings = settings or Settings()
    pods = [pod(job, index, settings) for index in range(job.spec.workers.nodes)]
    return [service(job), config_map(job), *pods]
