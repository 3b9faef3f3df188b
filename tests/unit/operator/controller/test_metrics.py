"""Values of the operator's metrics."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client import generate_latest
from tests.support.fake_kubernetes import job_body

from finetune_operator.api import JobStatus, Restarts
from finetune_operator.client.types import JobKey
from finetune_operator.controller.informer_cache import InformerCache
from finetune_operator.controller.metrics import Metrics
from finetune_trainer.protocol.outcome import Progress

CREATED = "2026-01-01T12:00:00Z"


LATER = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)


def text(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def test_counts_restarts_and_startup_times() -> None:
    metrics = Metrics()
    pending, running = JobStatus(), JobStatus(phase="Running")
    metrics.count_status_change(CREATED, pending, running, LATER)
    first = running.model_copy(update={"progress": Progress(step=1, total_steps=2)})
    metrics.count_status_change(CREATED, running, first, LATER)
    restarted = first.model_copy(update={"phase": "Restarting", "restarts": Restarts(total=2, by_reason={"Crashed": 2})})
    metrics.count_status_change(CREATED, first, restarted, LATER)
    metrics.count_status_change(CREATED, restarted, first, LATER)
    shown = text(metrics)
    assert 'finetune_operator_restarts_total{reason="Crashed"} 2.0' in shown
    assert "finetune_operator_pods_ready_seconds_sum 30.0" in shown
    assert "finetune_operator_pods_ready_seconds_count 1.0" in shown
    assert "finetune_operator_first_step_seconds_count 1.0" in shown


def test_exposes_jobs_until_they_are_deleted() -> None:
    metrics, cache = Metrics(), InformerCache()
    body = job_body(1)
    body["status"] = {
        "phase": "Succeeded",
        "progress": {"step": 10, "totalSteps": 20, "loss": 1.5},
        "metrics": {"perplexity": 4.5},
        "workers": {"ready": 0},
    }
    cache.put_job(body)
    metrics.watch(cache, lambda: 3.0)
    namespace = 'namespace="team"'
    expected = {
        'finetune_operator_jobs{phase="Succeeded"} 1.0',
        'finetune_operator_jobs{phase="Running"} 0.0',
        f'finetune_operator_job_info{{job="j",{namespace},phase="Succeeded"}} 1.0',
        f'finetune_operator_job_loss{{job="j",{namespace}}} 1.5',
        f'finetune_operator_job_progress_ratio{{job="j",{namespace}}} 0.5',
        f'finetune_operator_job_final_metric{{job="j",metric="perplexity",{namespace}}} 4.5',
        "finetune_operator_queue_oldest_seconds 3.0",
    }
    assert expected <= set(text(metrics).splitlines())
    assert "job_eval_loss{" not in text(metrics), "an unknown value is not reported as 0"
    cache.remove_job(JobKey("team", "j"), "job-uid")
    assert 'job="j"' not in text(metrics)


def test_only_the_leader_exports_jobs() -> None:
    """Otherwise Prometheus would count each job once for each replica."""
    is_leading = False
    metrics = Metrics()
    metrics.watch(InformerCache(), lambda: 0.0, lambda: is_leading)
    assert metrics.registry.get_sample_value("finetune_operator_leader") == 0
    assert metrics.registry.get_sample_value("finetune_operator_jobs", {"phase": "Running"}) is None
    is_leading = True
    assert metrics.registry.get_sample_value("finetune_operator_leader") == 1
    assert metrics.registry.get_sample_value("finetune_operator_jobs", {"phase": "Running"}) == 0
