"""Prometheus metrics of the operator, and the newest values of every job until it is deleted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import get_args

import prometheus_client as prometheus
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from finetune_operator.api import JobStatus, Phase
from finetune_operator.client.types import JobKey
from finetune_operator.controller.informer_cache import InformerCache

StatusByKey = tuple[JobKey, JobStatus]
PREFIX = "finetune_operator"
STARTUP_BUCKETS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)  # seconds


class Metrics:
    """The metrics of one operator process, in one registry."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        self.reconcile_seconds = prometheus.Histogram(
            f"{PREFIX}_reconcile_duration_seconds",
            "Duration of one reconcile of one job, including requests to the API server.",
            registry=self.registry,
        )
        self.reconcile_errors = prometheus.Counter(
            f"{PREFIX}_reconcile_errors", "Reconciles that failed and are retried.", registry=self.registry
        )
        self._requests = prometheus.Counter(
            f"{PREFIX}_api_requests",
            "Requests to the API server by status code; the code is 0 if there was no response.",
            ("verb", "resource", "code"),
            registry=self.registry,
        )
        self._polls = prometheus.Counter(
            f"{PREFIX}_progress_polls",
            "Requests to pods for their progress by result: ok, unreachable, or invalid for an answer that is ignored.",
            ("result",),
            registry=self.registry,
        )
        self._restarts = prometheus.Counter(
            f"{PREFIX}_restarts", "Pod restarts by reason.", ("reason",), registry=self.registry
        )
        self._resizes = prometheus.Counter(
            f"{PREFIX}_resizes", "Changes of the number of nodes of elastic jobs.", ("direction",), registry=self.registry
        )
        self._pods_ready_seconds = prometheus.Histogram(
            f"{PREFIX}_pods_ready_seconds",
            "Time from the creation of a job until all of its pods were ready.",
            buckets=STARTUP_BUCKETS,
            registry=self.registry,
        )
        self._first_step_seconds = prometheus.Histogram(
            f"{PREFIX}_first_step_seconds",
            "Time from the creation of a job until its first optimizer step.",
            buckets=STARTUP_BUCKETS,
            registry=self.registry,
        )

    def count_request(self, verb: str, resource: str, code: int) -> None:
        """Count a request to the API server."""
        self._requests.labels(verb, resource, code).inc()

    def count_poll(self, result: str) -> None:
        """Count a request to a pod for its progress."""
        self._polls.labels(result).inc()

    def count_status_change(self, created: str, old: JobStatus, new: JobStatus, now: datetime) -> None:
        """Count the restarts, readiness and first step of a job by comparing its new status with the old one."""
        for reason, count in new.restarts.by_reason.items():
            added = count - old.restarts.by_reason.get(reason, 0)
            if added > 0:
                self._restarts.labels(reason).inc(added)
        if _resizes(new) > _resizes(old):
            direction = "grow" if _nodes(new) > _nodes(old) else "shrink"
            self._resizes.labels(direction).inc()
        age = (now - datetime.fromisoformat(created)).total_seconds()
        if old.phase == "Pending" and new.phase == "Running" and new.restarts.total == 0:
            self._pods_ready_seconds.observe(age)
        if _step(old) == 0 and _step(new) > 0:
            self._first_step_seconds.observe(age)

    def watch(
        self, cache: InformerCache, oldest_wait: Callable[[], float], is_leading: Callable[[], bool] = lambda: True
    ) -> None:
        """Expose the jobs in the cache, the wait of the oldest key in the work queue, and whether this replica leads."""
        self.registry.register(JobCollector(cache, is_leading))
        leader = prometheus.Gauge(f"{PREFIX}_leader", "1 if this replica is the leader.", registry=self.registry)
        leader.set_function(is_leading)
        queue_oldest = prometheus.Gauge(
            f"{PREFIX}_queue_oldest_seconds",
            "Time for which the oldest job in the work queue has been waiting or reconciled.",
            registry=self.registry,
        )
        queue_oldest.set_function(oldest_wait)


class JobCollector(Collector):
    """Metrics of jobs, computed from the cache at each scrape, so that they disappear with the job.

    Only the leader has them; otherwise each job would be counted once for each replica.
    """

    def __init__(self, cache: InformerCache, is_leading: Callable[[], bool]) -> None:
        self._cache, self._is_leading = cache, is_leading

    def describe(self) -> list[Metric]:
        """An empty list: no metric needs to be registered in advance."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metric families; metrics of one job have the labels namespace and job."""
        if not self._is_leading():
            return
        all_jobs = list(self._cache.jobs.values())
        unreadable = _job_family("job_status_unreadable", "1 for a job whose status this version of the operator cannot read.")
        for job in all_jobs:
            if job.status is None:
                unreadable.add_metric(job.key, 1)
        yield unreadable
        jobs = [(job.key, job.status) for job in all_jobs if job.status is not None]
        yield _jobs_by_phase(jobs)
        info = _job_family("job_info", "1 for the current phase of a job.", "phase")
        final = _job_family("job_final_metric", "Final metrics of a complete job.", "metric")
        for key, status in jobs:
            info.add_metric((*key, status.phase), 1)
            for name, value in status.metrics.items():
                final.add_metric((*key, name), value)
        yield from (info, final)
        yield _job_gauge(jobs, "job_loss", "Training loss of the last reported step.", lambda job: _progress(job, "loss"))
        yield _job_gauge(jobs, "job_eval_loss", "Loss of the last evaluation.", lambda job: _progress(job, "eval_loss"))
        yield _job_gauge(jobs, "job_progress_ratio", "Completed share of the optimizer steps.", _progress_ratio)
        yield _job_gauge(jobs, "job_workers_ready", "Number of ready pods.", lambda job: job.workers.ready)
        yield _job_gauge(jobs, "job_nodes", "Number of nodes that the run uses.", lambda job: job.workers.replicas)
        yield _job_gauge(jobs, "job_nodes_desired", "Number of nodes that the job asks for.", lambda job: job.workers.desired)
        yield _job_gauge(jobs, "job_restarts", "Number of pod restarts.", lambda job: job.restarts.total)


def _jobs_by_phase(jobs: list[StatusByKey]) -> GaugeMetricFamily:
    counts = Counter(status.phase for _, status in jobs)
    family = GaugeMetricFamily(f"{PREFIX}_jobs", "Number of jobs by phase.", labels=("phase",))
    for phase in get_args(Phase):
        family.add_metric((phase,), counts[phase])
    return family


def _job_family(name: str, documentation: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", documentation, labels=("namespace", "job", *labels))


def _job_gauge(
    jobs: list[StatusByKey], name: str, documentation: str, value_of: Callable[[JobStatus], float | None]
) -> GaugeMetricFamily:
    """A gauge with the value of each job for which it is known."""
    family = _job_family(name, documentation)
    for key, status in jobs:
        value = value_of(status)
        if value is not None:
            family.add_metric(key, value)
    return family


def _progress(status: JobStatus, field: str) -> float | None:
    return getattr(status.progress, field, None)


def _progress_ratio(status: JobStatus) -> float | None:
    progress = status.progress
    if progress is None or not progress.total_steps:
        return None
    return progress.step / progress.total_steps


def _resizes(status: JobStatus) -> int:
    return status.elastic.resizes if status.elastic is not None else 0


def _nodes(status: JobStatus) -> int:
    """The number of nodes that the run of an elastic job uses; 0 if it is not elastic or has no pods."""
    return (status.elastic.nodes if status.elastic is not None else None) or 0


def _step(status: JobStatus) -> int:
    return status.progress.step if status.progress is not None else 0
