"""The agent's status, metrics and HTTP server."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from finetune_trainer.agent.monitor import Monitor
from finetune_trainer.agent.server import serve
from finetune_trainer.protocol.events import (
    Alive,
    CheckpointFailed,
    CheckpointStored,
    DataFound,
    Ended,
    Evaluated,
    Event,
    LossAnomalyFound,
    Step,
    StepTime,
    StragglersFound,
)
from finetune_trainer.protocol.outcome import (
    DataSummary,
    LossAnomalies,
    Outcome,
    Progress,
    Reason,
    RunStatus,
    SavedCheckpoint,
    Straggler,
)

JOB = {"namespace": "research", "job": "demo"}
CHECKPOINT = SavedCheckpoint(step=7, time="2026-01-01T00:00:00Z", uri="s3://bucket/manifests/step-00000007.json")
DATA = DataSummary(rows=5, tokens=500, truncated_share=0.2, findings=["1 of 5 training rows with personal data"])
SLOW = Straggler(rank=3, node=1, ratio=1.75)
ANOMALY = LossAnomalyFound(
    progress=Progress(step=4, total_steps=10), anomalies=LossAnomalies(skipped_steps=3, roll_backs=1, message="step 6: NaN")
)
STORED = CheckpointStored(checkpoint=CHECKPOINT, size_bytes=1000, seconds={"snapshot": 0.5, "write": 2.0, "upload": 8.0})


def step(number: int, loss: float = 2.0) -> Step:
    progress = Progress(step=number, total_steps=10, epoch=0.5, percent=70, loss=loss, learning_rate=0.001)
    return Step(progress=progress, gradient_norm=1.5, tokens=100, samples=4, padding_ratio=0.25)


@pytest.mark.parametrize(
    ("event", "sample", "labels", "value"),
    [
        (step(7), "loss", {}, 2.0),
        (step(7), "learning_rate", {}, 0.001),
        (step(7), "grad_norm", {}, 1.5),
        (step(7), "step", {}, 7),
        (step(7), "total_steps", {}, 10),
        (step(7), "epoch", {}, 0.5),
        (step(7), "padding_ratio", {}, 0.25),
        (step(7), "tokens_total", {}, 100),
        (step(7), "samples_total", {}, 4),
        (Evaluated(step=7, metrics={"loss": 1.5, "accuracy": 0.5}), "eval_loss", {}, 1.5),
        (Evaluated(step=7, metrics={"loss": 1.5, "accuracy": 0.5}), "eval_metric", {"metric": "accuracy"}, 0.5),
        (StepTime(seconds=0.2, data_wait_seconds=0.1), "step_duration_seconds_sum", {"rank": "2"}, 0.2),
        (StepTime(steps=4, seconds=0.2, data_wait_seconds=0.1), "step_duration_seconds_sum", {"rank": "2"}, 0.2),
        (StepTime(steps=4, seconds=0.2, data_wait_seconds=0.1), "step_duration_seconds_count", {"rank": "2"}, 4),
        (StepTime(seconds=0.2, data_wait_seconds=0.1), "data_wait_seconds_total", {}, 0.1),
        (StepTime(seconds=0.2, data_wait_seconds=0.1), "step_compute_seconds", {"rank": "2"}, None),
        (StepTime(steps=4, seconds=3, data_wait_seconds=0.5, forward_seconds=1.5), "step_compute_seconds", {"rank": "2"}, 0.5),
        (StragglersFound(stragglers=[SLOW]), "straggler_ratio", {"rank": "3"}, 1.75),
        (ANOMALY, "skipped_steps", {}, 3),
        (ANOMALY, "roll_backs", {}, 1),
        (STORED, "checkpoint_bytes", {}, 1000),
        (STORED, "checkpoint_stall_seconds_total", {}, 0.5),
        (STORED, "checkpoint_duration_seconds_sum", {"phase": "upload"}, 8.0),
        (CheckpointFailed(step=7, message="no"), "checkpoint_failures_total", {}, 1),
        (Alive(activity="Starting"), "checkpoint_failures_total", {}, 0),
        (Alive(activity="Starting"), "in_place_restarts_total", {}, 0),
        (Ended(outcome=Outcome(reason=Reason.COMPLETE)), "loss", {}, None),
    ],
)
def test_updates_metrics_from_events(
    monitor: Monitor, event: Event, sample: str, labels: dict[str, str], value: float | None
) -> None:
    monitor.observe(2, event)
    assert monitor.metrics.registry.get_sample_value(f"finetune_{sample}", JOB | labels) == value


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([Alive(activity="Preparing")], {"activity": "Preparing"}),
        ([Alive(activity="Preparing"), step(1)], {"activity": "Training"}),
        ([Alive(activity="Preparing", detail="5 rows"), Alive(activity="Preparing")], {"detail": "5 rows"}),
        ([Alive(activity="Preparing", detail="5 rows"), Alive(activity="Training")], {"detail": None}),
        ([Alive(activity="Preparing", detail="5 rows"), DataFound(data=DATA)], {"detail": None, "data": DATA}),
        ([DataFound(data=DATA), step(1)], {"data": DATA}),
        ([StragglersFound(stragglers=[SLOW]), step(1)], {"stragglers": [SLOW]}),
        ([StragglersFound(stragglers=[SLOW]), StragglersFound(stragglers=[])], {"stragglers": []}),
        ([STORED, CheckpointFailed(step=9, message="disk full")], {"checkpoint_error": "step 9: disk full"}),
        ([CheckpointFailed(step=9, message="disk full"), STORED], {"checkpoint_error": None, "checkpoint": CHECKPOINT}),
    ],
)
def test_updates_status_from_events(monitor: Monitor, events: list[Event], expected: dict[str, Any]) -> None:
    for event in events:
        monitor.observe(2, event)
    assert {name: getattr(monitor.status(), name) for name in expected} == expected


def test_keeps_last_evaluation_and_highest_step(monitor: Monitor) -> None:
    for event in (step(5), Evaluated(step=5, metrics={"loss": 1.25}), step(6), step(3, loss=1.0)):
        monitor.observe(2, event)
    progress = monitor.status().progress
    assert (progress.step, progress.loss, progress.eval_loss) == (3, 1.0, 1.25)
    assert monitor.highest_step == 6


def test_ignores_activity_of_other_ranks(monitor: Monitor) -> None:
    monitor.observe(2, Alive(activity="Training"))
    monitor.observe(3, Alive(activity="Exporting"))
    assert monitor.status().activity == "Training"


def test_completes_outcome_with_status(monitor: Monitor) -> None:
    monitor.observe(2, step(7))
    monitor.observe(2, STORED)
    monitor.observe(2, DataFound(data=DATA))
    completed = monitor.complete_outcome(Outcome(reason=Reason.CRASHED))
    assert (completed.progress.step, completed.checkpoint, completed.data) == (7, CHECKPOINT, DATA)
    outcome = Outcome(reason=Reason.COMPLETE, progress=Progress(step=10))
    assert monitor.complete_outcome(outcome).progress.step == 10


def test_serves_metrics_progress_and_health(monitor: Monitor) -> None:
    monitor.observe(2, step(7))
    port = serve(0, monitor)
    families = {family.name: family for family in text_string_to_metric_families(_get(port, "/metrics"))}
    assert families["finetune_loss"].samples[0].value == 2.0
    assert RunStatus.model_validate_json(_get(port, "/progress")) == monitor.status()
    with pytest.raises(urllib.error.HTTPError, match="503"):
        _get(port, "/healthz")
    monitor.ranks_started(is_restart=False)
    assert _get(port, "/healthz") == "ok"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        _get(port, "/")


def test_stalled_loop_is_not_ready(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor.ranks_started(is_restart=False)
    monitor.heartbeat()
    now = monitor._last_heartbeat
    monkeypatch.setattr("finetune_trainer.agent.monitor.time.monotonic", lambda: now + 100)
    assert monitor.unready_reason() == "the agent's loop has not run for 100 seconds"


def _get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())
