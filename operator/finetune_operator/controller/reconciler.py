"""One reconcile of one job: observe, plan, write the status, record the events, execute the actions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from finetune_operator.api.conditions import ConditionReason
from finetune_operator.client.errors import ApiError
from finetune_operator.client.kubernetes import KubernetesClient
from finetune_operator.client.types import JobKey
from finetune_operator.controller.action_executor import ActionExecutor
from finetune_operator.controller.event_recorder import EventRecorder
from finetune_operator.controller.informer_cache import CachedJob, InformerCache
from finetune_operator.controller.job_state import JobState, JobStates, UnreadableStatusError
from finetune_operator.controller.metrics import Metrics
from finetune_operator.controller.node_monitor import NodeMonitor
from finetune_operator.controller.observer import Observer
from finetune_operator.controller.status_writer import StatusWriter
from finetune_operator.controller.workqueue import OutdatedError
from finetune_operator.reconcile import Event, ObservedState, Plan, ReconcileTimings, reconcile
from finetune_operator.settings import Settings

logger = logging.getLogger(__name__)


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
        self._client = client
        self.events = EventRecorder(client, instance, clock)

    async def reconcile(self, key: JobKey) -> float | None:
        """Reconcile a job once. Returns the seconds until the next reconcile, or None if only a change requires one.

        Raises OutdatedError if another client has changed or deleted an object, which the watch is about to report.
        """
        job = self._cache.jobs.get(key)
        if job is None:
            self._states.remove(key)
            return None
        if job.is_being_deleted:
            return None
        with self._metrics.reconcile_seconds.time():
            state = self._states.get(job)
            try:
                try:
                    observed, plan = await self._plan(job, state)
                except UnreadableStatusError as error:
                    await self._leave_alone(job, state, str(error))
                    return None
                return await self._apply(job, state, observed, plan)
            except ApiError as error:
                if error.status not in (404, 409):
                    raise
                raise OutdatedError(str(error)) from error

    async def _plan(self, job: CachedJob, state: JobState) -> tuple[ObservedState, Plan]:
        """The observed state, and what is to be done about it."""
        observed = await self._observer.observe(job, state)
        plan = reconcile(observed, self._timings)
        if not plan.needs_consistent_read:
            return observed, plan
        # The pod watch may lag behind the job watch, and another operator may have counted this failure already.
        await self._observer.refresh_pods(job.key)
        observed = await self._observer.observe(job, state)
        return observed, reconcile(observed, self._timings)

    async def _leave_alone(self, job: CachedJob, state: JobState, error: str) -> None:
        """Report once that the status of a job cannot be read. Nothing is created, deleted or decided for the job.

        Of its status only `reason` is set, because every version of the operator computes that field anew. A condition would
        replace the list of conditions, whose entries this version may not understand.
        """
        if state.reported_status_error == error:
            return
        message = (
            "This version of the operator cannot read the status of the job and leaves it alone with its pods: "
            f"{error}. Install the version of the operator that wrote the status, or a newer one."
        )
        logger.warning("%s: %s", job.key, message)
        self.events.record(job, [Event("Warning", ConditionReason.STATUS_UNREADABLE, message)])
        try:
            await self._client.patch_status(job.key, job.resource_version, {"reason": ConditionReason.STATUS_UNREADABLE})
        except ApiError as rejection:
            if not rejection.is_rejection:
                raise
            logger.warning("%s: the API server accepts no change of this status: %s", job.key, rejection)
        state.reported_status_error = error

    async def _apply(self, job: CachedJob, state: JobState, observed: ObservedState, plan: Plan) -> float | None:
        """Write the status, record the events, then execute the actions. Returns the seconds until the next reconcile.

        The events follow from the status, so they are recorded whether or not the actions succeed.
        """
        write_after = await self._status_writer.write(job, state, plan)
        if write_after is not None:
            return _earliest(write_after, plan.requeue_after)
        self.events.record(job, plan.events)
        try:
            retry_after = await self._executor.execute(job, state, plan.actions)
        finally:  # the status counts the pods that had vanished, even if an action fails
            self._observer.remember_pods(job, state, observed)
        return _earliest(retry_after, plan.requeue_after)


def _earliest(*delays: float | None) -> float | None:
    return min((delay for delay in delays if delay is not None), default=None)
