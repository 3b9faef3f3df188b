"""One reconcile of one job: observe, plan, write the status, execute the actions, emit the events."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from finetune_operator.client.kubernetes import ApiError, KubernetesClient
from finetune_operator.client.types import JobKey
from finetune_operator.controller.action_executor import ActionExecutor
from finetune_operator.controller.event_recorder import EventRecorder
from finetune_operator.controller.informer_cache import CachedJob, InformerCache
from finetune_operator.controller.job_state import JobState, JobStates
from finetune_operator.controller.metrics import Metrics
from finetune_operator.controller.node_monitor import NodeMonitor
from finetune_operator.controller.observer import Observer
from finetune_operator.controller.status_writer import StatusWriter
from finetune_operator.reconcile import Plan, ReconcileTimings, reconcile
from finetune_operator.settings import Settings

CONFLICT_RETRY_SECONDS = 0.1  # for the watch to report the write of another client


def utc_now() -> datetime:
    """The current time."""
    return datetime.now(UTC)


class Reconciler:
    """Reconciles jobs. Different jobs may be reconciled concurrently, one job never."""

    def __init__(
        self,
        cache: InformerCache,
        states: JobStates,
        client: KubernetesClient,
        settings: Settings,
        metrics: Metrics,
        instance: str = "finetune-operator",
        clock: Callable[[], datetime] = utc_now,
        nodes: NodeMonitor | None = None,
    ) -> None:
        self._cache, self._states, self._metrics = cache, states, metrics
        self._timings = ReconcileTimings(node_lost_seconds=settings.node_lost_seconds)
        self._observer = Observer(cache, client, settings, nodes or NodeMonitor(client, clock), clock)
        self._status_writer = StatusWriter(cache, client, settings, metrics, clock)
        self._executor = ActionExecutor(cache, client, settings, clock)
        self._event_recorder = EventRecorder(client, instance, clock)

    async def reconcile(self, key: JobKey) -> float | None:
        """Reconcile a job once. Returns the seconds until the next reconcile, or None if only a change requires one."""
        job = self._cache.jobs.get(key)
        if job is None:
            self._states.remove(key)
            return None
        if job.is_being_deleted:
            return None
        with self._metrics.reconcile_seconds.time():
            state = self._states.get(job)
            plan = await self._plan(job, state)
            try:
                return await self._apply(job, state, plan)
            except ApiError as error:
                if error.status not in (404, 409):
                    raise
                return CONFLICT_RETRY_SECONDS  # another client was faster, and the watch is about to report it

    async def _plan(self, job: CachedJob, state: JobState) -> Plan:
        observed = await self._observer.observe(job, state)
        plan = reconcile(observed, self._timings)
        if not plan.needs_consistent_read:
            return plan
        # The pod watch may lag behind the job watch, and another operator may have counted this failure already.
        await self._observer.refresh_pods(job.key)
        return reconcile(await self._observer.observe(job, state), self._timings)

    async def _apply(self, job: CachedJob, state: JobState, plan: Plan) -> float | None:
        """Write the status, then execute the actions. Returns the seconds until the next reconcile."""
        write_after = await self._status_writer.write(job, state, plan)
        if write_after is not None:
            return _earliest(write_after, plan.requeue_after)
        retry_after = await self._executor.execute(job, state, plan.actions)
        self._observer.remember_pods(job, state)
        await self._event_recorder.emit_events(job, plan.events)
        return _earliest(retry_after, plan.requeue_after)


def _earliest(*delays: float | None) -> float | None:
    return min((delay for delay in delays if delay is not None), default=None)
