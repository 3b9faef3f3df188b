"""The kubelet's warnings about pods that do not start.

A pod whose volume or network cannot be set up stays in ContainerCreating. Its status is the same as that of a pod whose image
is being pulled, which may take long and is no failure; only the kubelet's events tell them apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from finetune_operator.api.conditions import parse_timestamp
from finetune_operator.client.kubernetes import KubernetesClient
from finetune_operator.controller.informer_cache import CachedJob
from finetune_operator.controller.job_state import JobState
from finetune_operator.reconcile import Pod, ReasonMessage, ReconcileTimings

# Reasons of events about volumes and sandboxes, from pkg/kubelet/events/event.go and the attach/detach controller.
REASONS = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox", "NetworkNotReady"})
MAX_EVENT_AGE = timedelta(minutes=5)  # the kubelet tries again, and reports a failure again, at least every two minutes
MAX_PODS = 4  # of a job whose events are read at once


class StartProblems:
    """Reads the events of pods that take long to start, at intervals."""

    def __init__(self, client: KubernetesClient, clock: Callable[[], datetime]) -> None:
        self._client, self._clock = client, clock
        timings = ReconcileTimings()
        self._min_age, self._interval = timedelta(seconds=timings.start_check_after), timings.start_check_interval

    async def of(self, job: CachedJob, state: JobState, pods: Iterable[Pod]) -> dict[str, ReasonMessage]:
        """The newest warning about each pod that does not start, by UID."""
        now = self._clock()
        starting = [pod for pod in pods if pod.is_starting_containers and now - pod.created >= self._min_age][:MAX_PODS]
        if not starting:
            state.start_problems = {}
            return {}
        if time.monotonic() - state.problems_checked >= self._interval:
            state.problems_checked = time.monotonic()
            problems = {pod.uid: await self._newest_warning(job, pod, now) for pod in starting}
            state.start_problems = {uid: problem for uid, problem in problems.items() if problem is not None}
        return state.start_problems

    async def _newest_warning(self, job: CachedJob, pod: Pod, now: datetime) -> ReasonMessage | None:
        events = await self._client.pod_warnings(job.key.namespace, pod.uid)
        recent = [event for event in events if now - _last_time(event, now) <= MAX_EVENT_AGE]
        relevant = [event for event in recent if event.get("reason") in REASONS]
        if not relevant:
            return None
        newest = max(relevant, key=lambda event: _last_time(event, now))
        return ReasonMessage(newest["reason"], newest.get("note", ""))


def _last_time(event: dict[str, Any], now: datetime) -> datetime:
    """When an event happened last; the kubelet writes core/v1 events, whose times have other names here."""
    series = event.get("series") or {}
    text = series.get("lastObservedTime") or event.get("deprecatedLastTimestamp") or event.get("eventTime")
    return parse_timestamp(text) if text else now
