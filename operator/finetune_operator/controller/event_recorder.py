"""Emits Kubernetes events about jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime

from finetune_operator import builders
from finetune_operator.client.kubernetes import ApiError, KubernetesClient
from finetune_operator.controller.informer_cache import CachedJob
from finetune_operator.reconcile import Event

logger = logging.getLogger(__name__)


class EventRecorder:
    """Logs events and creates them in the namespace of the job; `instance` names the operator's pod in them."""

    def __init__(self, client: KubernetesClient, instance: str, clock: Callable[[], datetime]) -> None:
        self._client, self._instance, self._clock = client, instance, clock

    async def emit_events(self, job: CachedJob, events: Iterable[Event]) -> None:
        """Emit events. A rejected event is only logged, because the status contains the same information."""
        for event in events:
            logger.info("%s: %s: %s", job.key, event.reason, event.message)
            reference = builders.JobReference(*job.key, job.uid)
            body = builders.build_event(reference, event.type, event.reason, event.message, self._clock(), self._instance)
            try:
                await self._client.create(body)
            except ApiError as error:
                logger.warning("%s: the event could not be created: %s", job.key, error)
