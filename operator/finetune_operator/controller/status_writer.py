"""Writes the status of jobs, and limits how often progress alone is written."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from finetune_operator.client.kubernetes import ApiError, KubernetesClient
from finetune_operator.controller.informer_cache import CachedJob, InformerCache
from finetune_operator.controller.job_state import JobState
from finetune_operator.controller.metrics import Metrics
from finetune_operator.reconcile import Plan
from finetune_operator.settings import Settings


class StatusWriter:
    """Writes statuses with optimistic concurrency: the API server rejects a write to a job that has changed."""

    def __init__(
        self,
        cache: InformerCache,
        client: KubernetesClient,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._cache, self._client, self._settings = cache, client, settings
        self._metrics, self._clock = metrics, clock

    async def write(self, job: CachedJob, state: JobState, plan: Plan) -> float | None:
        """Write the status of the plan if it differs from the last one.

        Returns None, or for an unurgent change that is postponed, the seconds until it may be written.
        Raises ApiError 409 if the job has changed and 404 if it was deleted.
        """
        previous, resource_version = state.latest_status(job)
        if plan.status == previous:
            return None
        if not plan.is_urgent and not plan.actions:
            remaining = state.last_write + self._write_interval() - time.monotonic()
            if remaining > 0:
                return remaining
        # In a status that was never written even the fields with default values are absent.
        written = previous.document() if previous.observed_generation is not None else {}
        patch = merge_patch(written, plan.status.document())
        try:
            body = await self._client.patch_status(job.key, resource_version, patch)
        except ApiError as error:
            if error.status == 404:
                self._cache.remove_job(job.key, job.uid)  # deleted, but the watch has not reported it yet
            raise
        state.resource_version, state.status = int(body["metadata"]["resourceVersion"]), plan.status
        state.last_write = time.monotonic()
        self._metrics.count_status_change(job.created, previous, plan.status, self._clock())
        return None

    def _write_interval(self) -> float:
        """Seconds between two writes of one job that contain only progress; longer with many jobs."""
        fair_share = len(self._cache.jobs) / self._settings.progress_writes_per_second
        return max(self._settings.progress_write_interval, fair_share)


def merge_patch(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The RFC 7386 merge patch that changes `old` into `new`; lists are replaced as a whole."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        previous = old.get(key)
        if isinstance(value, dict) and isinstance(previous, dict):
            nested = merge_patch(previous, value)
            if nested:
                patch[key] = nested
        elif key not in old or previous != value:
            patch[key] = value
    return patch
