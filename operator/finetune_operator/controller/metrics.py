"""The operator's own metrics, and the last numbers of every job until it is deleted."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator
from datetime import datetime

import prometheus_client as prometheus
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from finetune_operator.api import JobStatus
from finetune_operator.controller.informer_cache import CachedJob, InformerCache

PREFIX = "finetune_operator"
UNTIL_READY = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """Counters that the controller moves; everything in one registry."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        self.reconcile_seconds = prometheus.Histogram(
            f"{PREFIX}_reconcile_duration_seconds",
            "Time of one look at one job, waiting for the API server included.",
            registry=self.registry,
        )
        self.reconcile_errors = prometheus.Counter(
            f"{PREFIX}_reconcile_errors", "Looks at a job that failed and are repeated.", registry=self.registry
        )
        self._requests = prometheus.Counter(
            f"{PREFIX}_api_requests",
            "Requests to the API server; code 0 is no answer.",
            ("verb", "resource", "code"),
            registry=self.registry,
        )
        self._restarts = prometheus.Counter(
            f"{PREFIX}_restarts", "Pods that were replaced.", ("reason",), registry=self.registry
        )
        self._ready = prometheus.Histogram(
            f"{PREFIX}_pods_ready_seconds",
            "From a job's creation until all of its pods were ready.",
            buckets=UNTIL_READY,
            registry=self.registry,
        )
        self._first_step = prometheus.Histogram(
            f"{PREFIX}_first_step_seconds",
            "From a job's creation until its first optimizer step.",
            buckets=UNTIL_READY,
            registry=self.registry,
        )

    def requested(self, verb: str, resource: str, code: int) -> None:
        """Count a request to the API server."""
        self._requests.labels(verb, resource, code).inc()

    def status_changed(self, created: str, old: JobStatus, new: JobStatus, now: datetime) -> None:
        """Count what a written status says has happened."""
        for reason, count in new.restarts.by_reason.items():
            if (more := count - old.restarts.by_reason.get(reason, 0)) > 0:
                self._restarts.labels(reason).inc(more)
        age = (now - datetime.fromisoformat(created)).total_seconds()
        if old.phase == "Pending" and new.phase == "Running" and new.restarts.total == 0:
            self._ready.observe(age)
        if _step(old) == 0 and _step(new) > 0:
            self._first_step.observe(age)

    def watch(self, cache: InformerCache, stalled_for: Callable[[], float]) -> None:
        """Expose what the cache holds, and for how long the oldest key in the queue has been waiting."""
        self.registry.register(JobCollector(cache))
        age = prometheus.Gauge(
            f"{PREFIX}_queue_oldest_seconds", "How long a job has been waiting to be looked at.", registry=self.registry
        )
        age.set_function(stalled_for)


class JobCollector(Collector):
    """Metrics of jobs, made from the cache when Prometheus asks, so that none outlives its job."""

    def __init__(self, cache: InformerCache) -> None:
        self._cache = cache

    def describe(self) -> list[Metric]:
        """Nothing in advance: the names depend on nothing, but the values on the cache."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families; labels are namespace and job."""
        jobs = list(self._cache.jobs.values())
        phases = GaugeMetricFamily(f"{PREFIX}_jobs", "Jobs by phase.", labels=("phase",))
        tally = Tally(job.status.phase for job in jobs)
        for phase in ("Pending", "Running", "Restarting", "Suspended", "Succeeded", "Failed"):
            phases.add_metric((phase,), tally[phase])
        yield phases
        info = _family("job_info", "1 for the phase a job is in.", "phase")
        final = _family("job_final_metric", "Final metrics of a finished job.", "metric")
        for job in jobs:
            info.add_metric((*job.key, job.status.phase), 1)
            for name, value in job.status.metrics.items():
                final.add_metric((*job.key, name), value)
        yield from (info, final)
        yield _gauge(jobs, "job_loss", "Loss at the last step that was reported.", lambda job: _progress(job, "loss"))
        yield _gauge(jobs, "job_eval_loss", "Last loss on evaluation data.", lambda job: _progress(job, "eval_loss"))
        yield _gauge(jobs, "job_progress_ratio", "Share of the optimizer steps that is done.", _ratio)
        yield _gauge(jobs, "job_workers_ready", "Pods that are ready.", lambda job: job.status.workers.ready)
        yield _gauge(jobs, "job_restarts", "Pods that were replaced.", lambda job: job.status.restarts.total)


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=("namespace", "job", *labels))


def _gauge(jobs: list[CachedJob], name: str, text: str, value: Callable[[CachedJob], float | None]) -> GaugeMetricFamily:
    family = _family(name, text)
    for job in jobs:
        number = value(job)
        if number is not None:
            family.add_metric(job.key, number)
    return family


def _progress(job: CachedJob, field: str) -> float | None:
    return getattr(job.status.progress, field, None)


def _ratio(job: CachedJob) -> float | None:
    progress = job.status.progress
    return progress.step / progress.total_steps if progress is not None and progress.total_steps else None


def _step(status: JobStatus) -> int:
    return status.progress.step if status.progress is not None else 0
