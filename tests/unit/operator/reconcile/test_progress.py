"""Progress, data summary and checkpoints in the status."""

from __future__ import annotations

import pytest
from tests.support.simulated_cluster import SimulatedCluster

from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile.progress import format_duration
from finetune_trainer.protocol.outcome import DataSummary, LossAnomalies, Progress, RunStatus, SavedCheckpoint, Straggler

SAVED = SavedCheckpoint(step=20, time="2026-01-01T12:00:00Z", uri="s3://out/j/manifests/step-00000020.json")
HALFWAY = Progress(step=50, total_steps=100, percent=50, remaining_seconds=3900, loss=2.0)


def test_progress_is_recorded_but_not_urgent() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.observed = {"run": RunStatus(activity="Training", progress=HALFWAY)}
    plan = cluster.reconcile()
    assert (cluster.status.progress, cluster.status.eta) == (HALFWAY, "1h05m")
    assert cluster.condition(ConditionType.RUNNING) == ("True", "Training")
    assert cluster.condition(ConditionType.CHECKPOINT_HEALTHY) is None
    assert not plan.is_urgent


def test_restarted_run_keeps_recorded_progress() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.observed = {"run": RunStatus(activity="Training", progress=HALFWAY, checkpoint=SAVED)}
    cluster.reconcile()
    cluster.observed = {"run": RunStatus(activity="Starting")}
    cluster.reconcile()
    assert (cluster.status.progress, cluster.status.checkpoint) == (HALFWAY, SAVED)


def test_emits_each_data_finding_once() -> None:
    cluster = SimulatedCluster().run_all_pods()
    data = DataSummary(rows=9, tokens=900, findings=["3 of 9 training rows with texts of the evaluation data"])
    cluster.observed = {"run": RunStatus(activity="Preparing", data=data)}
    assert cluster.reconcile().is_urgent
    cluster.observed = {"run": RunStatus(activity="Starting")}
    cluster.reconcile()
    cluster.observed = {"run": RunStatus(activity="Training", data=data)}
    cluster.reconcile()
    assert cluster.status.data == data
    findings = [event.message for event in cluster.events if event.reason == "DataFinding"]
    assert findings == ["Data: 3 of 9 training rows with texts of the evaluation data"]


def test_tells_once_why_ranks_were_restarted_in_place() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cause = "Hang: rank 1 on node 1 sent no heartbeat for 600 seconds while training"
    for activity in ("Starting", "Training"):
        cluster.observed = {"run": RunStatus(activity=activity, restart_cause=cause)}
        cluster.reconcile()
        message = f"The run is {activity.lower()}. The ranks were restarted in place: {cause}"
        assert cluster.message(ConditionType.RUNNING) == message
    assert [event.message for event in cluster.events if event.reason == "RanksRestarted"] == [
        f"The ranks were restarted in place: {cause}"
    ]


def test_names_each_straggler_once() -> None:
    cluster = SimulatedCluster().run_all_pods()
    slow, slower = Straggler(rank=1, node=1, ratio=1.62), Straggler(rank=0, node=0, ratio=2.1)
    for stragglers in ([slow], [slow], [slower, slow], [], [slow]):
        cluster.observed = {"run": RunStatus(activity="Training", stragglers=stragglers)}
        cluster.reconcile()
        assert cluster.status.stragglers == stragglers
    messages = [event.message for event in cluster.events if event.reason == "Straggler"]
    assert [message.split(" (")[0] for message in messages] == ["Rank 1 on pod j-1", "Rank 0 on pod j-0", "Rank 1 on pod j-1"]
    assert "its work in a step takes 1.62 times as long as that of the other ranks" in messages[0]


def test_reports_each_loss_anomaly_once() -> None:
    cluster = SimulatedCluster().run_all_pods()
    first = LossAnomalies(skipped_steps=1, message="step 7: the loss became nan with a.jsonl:3; the step was skipped")
    second = first.model_copy(update={"skipped_steps": 2, "message": "step 9: the loss became inf"})
    for anomalies in (None, first, first, second, None):
        cluster.observed = {"run": RunStatus(activity="Training", loss_anomalies=anomalies)}
        cluster.reconcile()
    assert cluster.status.loss_anomalies == second, "an agent that was replaced has not forgotten it"
    messages = [event.message for event in cluster.events if event.reason == "LossAnomaly"]
    assert messages == [f"Loss anomaly: {anomalies.message}." for anomalies in (first, second)]


def test_records_data_summary_from_termination_message() -> None:
    cluster = SimulatedCluster().run_all_pods()
    data = DataSummary(rows=9, tokens=900)
    cluster.succeed(0, data=data)
    cluster.reconcile()
    assert cluster.status.data == data


def test_checkpoint_error_clears_healthy_condition() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.observed = {"run": RunStatus(checkpoint=SAVED)}
    assert cluster.reconcile().is_urgent
    assert cluster.condition(ConditionType.CHECKPOINT_HEALTHY) == ("True", "CheckpointSaved")
    cluster.observed = {"run": RunStatus(checkpoint=SAVED, checkpoint_error="503 Slow Down")}
    assert cluster.reconcile().is_urgent
    assert cluster.condition(ConditionType.CHECKPOINT_HEALTHY) == ("False", "CheckpointSaveFailed")
    assert "503 Slow Down" in cluster.message(ConditionType.CHECKPOINT_HEALTHY)
    assert cluster.status.phase == "Running"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, None), (0, "0s"), (45, "45s"), (60, "1m"), (3599, "59m"), (3900, "1h05m"), (86400, "1d00h"), (183600, "2d03h")],
)
def test_format_duration(seconds: int | None, text: str | None) -> None:
    assert format_duration(seconds) == text
