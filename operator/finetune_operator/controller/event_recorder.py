"""Emits Kubernetes events about jobs, independently of the reconciles that record them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from finetune_operator import builders
from finetune_operator.client.errors import REQUEST_ERRORS, ApiError, retry_after
from finetune_operator.client.kubernetes import KubernetesClient
from finetune_operator.controller.informer_cache import CachedJob
from finetune_operator.reconcile import Event

MAX_WAITING = 1000  # events; with more than these the oldest are dropped
MAX_SERIES = 4096
SERIES_WINDOW = 1800.0  # seconds in which a repeated event is counted; the API server keeps events for an hour
SERIES_INTERVAL = 60.0  # seconds between two updates of one count
RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Series:
    """One event, how often it occurred, and the times (monotonic) of its first occurrence and of the next update."""

    job: builders.JobReference
    event: Event
    name: str
    time: datetime
    started: float
    count: int = 1
    next_update: float = 0.0


class EventRecorder:
    """Logs events and creates them in the namespace of the job; `instance` names the operator's pod in them.

    A repeated event is counted in the series of the first one instead of being created again. An event that the API server does
    not accept in time is dropped: the status of the job contains the same information.
    """

    def __init__(
        self,
        client: KubernetesClient,
        instance: str,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._instance, self._clock, self._monotonic = client, instance, clock, monotonic
        self._series: OrderedDict[tuple[str, Event], _Series] = OrderedDict()
        self._waiting: deque[_Series] = deque(maxlen=MAX_WAITING)
        self._has_waiting = asyncio.Event()

    def record(self, job: CachedJob, events: Iterable[Event]) -> None:
        """Emit events soon; never fails and never waits."""
        for event in events:
            self._record_one(job, event)

    async def run(self) -> None:
        """Send events until cancelled."""
        while True:
            await self._has_waiting.wait()
            await self.send_waiting()

    async def send_waiting(self) -> None:
        """Send all events that wait."""
        while self._waiting:
            series = self._waiting.popleft()
            try:
                await self._send_with_retries(series)
            except Exception as error:  # no event may end the task that sends the others
                logger.warning("%s/%s: the event %s is dropped: %s", *series.job[:2], series.event.reason, error)
        self._has_waiting.clear()

    def _record_one(self, job: CachedJob, event: Event) -> None:
        key, now = (job.uid, event), self._monotonic()
        series = self._series.get(key)
        if series is None or now - series.started > SERIES_WINDOW:
            logger.info("%s: %s: %s", job.key, event.reason, event.message)
            reference, time_of_event = builders.JobReference(*job.key, job.uid), self._clock()
            series = _Series(reference, event, _event_name(reference, event, time_of_event), time_of_event, now)
            self._series[key] = series
            if len(self._series) > MAX_SERIES:
                self._series.popitem(last=False)
        else:
            series.count += 1
            if now < series.next_update:
                return
            series.next_update = now + SERIES_INTERVAL
        if series not in self._waiting:
            self._waiting.append(series)
        self._has_waiting.set()

    async def _send_with_retries(self, series: _Series) -> None:
        for delay in RETRY_DELAYS:
            try:
                await self._send(series)
                return
            except REQUEST_ERRORS as error:
                if isinstance(error, ApiError) and error.is_rejection:
                    raise
                await asyncio.sleep(max(delay * random.uniform(1, 1.5), retry_after(error)))
        await self._send(series)

    async def _send(self, series: _Series) -> None:
        """Create the event, or update its count. A retry after a lost response does not create it twice."""
        event = series.event
        if series.count > 1:
            patch = builders.build_event_series(series.count, self._clock())
            try:
                await self._client.patch_event(series.job.namespace, series.name, patch)
                return
            except ApiError as error:
                if error.status != 404:  # the event has expired, or it was never created
                    raise
        body = builders.build_event(
            series.job, series.name, event.type, event.reason, event.message, series.time, self._instance
        )
        try:
            await self._client.create(body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise


def _event_name(job: builders.JobReference, event: Event, now: datetime) -> str:
    """The job's name and a digest of the event, so that two events of one moment have different names."""
    digest = hashlib.sha256(repr((job, event, now)).encode()).hexdigest()
    return f"{job.name}.{digest[:16]}"
