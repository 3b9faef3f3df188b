"""Writes the status of jobs, and limits how often progress alone or a flapping condition is written."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from finetune_operator.client.errors import ApiError
from finetune_operator.client.kubernetes import KubernetesClient
from finetune_operator.controller.informer_cache import CachedJob, InformerCache
from finetune_operator.controller.job_state import JobState
from finetune_operator.controller.metrics import Metrics
from finetune_operator.reconcile import Plan
from finetune_operator.settings import Settings

COALESCE_SECONDS = 0.2  # in which changes of conditions and of the number of ready pods are collected in one write


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
        # Where progress is to be written more often than that, conditions are not written later.
        self._coalesce_seconds = COALESCE_SECONDS if settings.progress_write_interval > COALESCE_SECONDS else 0.0

    async def write(self, job: CachedJob, state: JobState, plan: Plan) -> float | None:
        """Write the status of the plan if it differs from the last one.

        Returns None, or for an unurgent change that is postponed, the seconds until it may be written.
        Raises ApiError 409 if the job has changed and 404 if it was deleted.
        """
        previous, resource_version = state.latest_status(job)
        if plan.status == previous:
            return None
        remaining = self._postponement(state, plan)
        if remaining > 0:
            return remaining
        # In a status that was never written even the fields with default values are absent.
        written = previous.document() if previous.observed_generation is not None else {}
        patch = merge_patch(written, plan.status.document())
        _keep_foreign_fields(patch, job)
        patch = _finite(patch)
        try:
            body = await self._client.patch_status(job.key, resource_version, patch)
        except ApiError as error:
            if error.status == 404:
                self._cache.remove_job(job.key, job.uid)  # deleted, but the watch has not reported it yet
            raise
        state.resource_version, state.status = int(body["metadata"]["resourceVersion"]), plan.status
        state.last_write, state.changed_since = time.monotonic(), None
        self._metrics.count_status_change(job.created, previous, plan.status, self._clock())
        return None

    def _postponement(self, state: JobState, plan: Plan) -> float:
        """Seconds until the status may be written; 0 or less if it may be written now."""
        if plan.is_urgent or plan.actions:
            return 0.0
        now = time.monotonic()
        if plan.is_progress_only:
            return state.last_write + self._progress_interval() - now
        if state.changed_since is None:
            state.changed_since = now
        # A moment later the next pod may be ready, which one write can report too.
        remaining = state.changed_since + self._coalesce_seconds - now
        return remaining if remaining > 0 else state.write_budget.take(now)

    def _progress_interval(self) -> float:
        """Seconds between two writes of one job that contain only progress; longer with many active jobs."""
        fair_share = self._cache.active_jobs / self._settings.progress_writes_per_second
        return max(self._settings.progress_write_interval, fair_share)


def _keep_foreign_fields(patch: dict[str, Any], job: CachedJob) -> None:
    """Keep the fields of conditions that a newer operator has written: a merge patch keeps all others, but replaces lists."""
    for condition in patch.get("conditions") or ():
        for name, value in job.foreign_condition_fields.get(condition["type"], {}).items():
            condition.setdefault(name, value)


def _finite(value: Any) -> Any:
    """A copy of a JSON value without numbers that JSON cannot represent, such as the perplexity of a run that diverged."""
    match value:
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list():
            return [_finite(item) for item in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value


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
