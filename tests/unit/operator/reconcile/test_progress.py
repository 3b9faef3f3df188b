"""What the run says of itself, in the status."""

from __future__ import annotations

import pytest
from tests.support.simulated_cluster import SimulatedCluster

from finetune_operator.api.conditions import ConditionType
from finetune_operator.reconcile.progress import duration
from finetune_trainer.protocol.outcome import DataSummary, Progress, RunStatus, SavedCheckpoint

SAVED = SavedCheckpoint(step=20, time="2026-01-01T12:00:00Z", uri="s3://out/j/manifests/step-00000020.json")
HALFWAY = Progress(step=50, total_steps=100, percent=50, remaining_seconds=3900, loss=2.0)


def test_progress_is_taken_over_and_can_wait() -> None:
    world = SimulatedCluster().running()
    world.seen = {"run": RunStatus(activity="Training", progress=HALFWAY)}
    plan = world.one_pass()
    assert (world.status.progress, world.status.eta) == (HALFWAY, "1h05m")
    assert world.condition(ConditionType.RUNNING) == ("True", "Training")
    assert world.condition(ConditionType.CHECKPOINT_HEALTHY) is None
    assert not plan.urgent


def test_a_restarted_run_that_does_not_know_yet_erases_nothing() -> None:
    world = SimulatedCluster().running()
    world.seen = {"run": RunStatus(activity="Training", progress=HALFWAY, checkpoint=SAVED)}
    world.one_pass()
    world.seen = {"run": RunStatus(activity="Starting")}
    world.one_pass()
    assert (world.status.progress, world.status.checkpoint) == (HALFWAY, SAVED)


def test_findings_of_the_data_are_told_once_and_stay() -> None:
    world = SimulatedCluster().running()
    data = DataSummary(rows=9, tokens=900, findings=["3 of 9 training rows with texts of the evaluation data"])
    world.seen = {"run": RunStatus(activity="Preparing", data=data)}
    assert world.one_pass().urgent
    world.seen = {"run": RunStatus(activity="Starting")}
    world.one_pass()
    world.seen = {"run": RunStatus(activity="Training", data=data)}
    world.one_pass()
    assert world.status.data == data
    told = [note.message for note in world.notes if note.reason == "DataFinding"]
    assert told == ["Data: 3 of 9 training rows with texts of the evaluation data"]


def test_a_run_too_short_to_be_asked_tells_of_its_data_at_its_end() -> None:
    world = SimulatedCluster().running()
    data = DataSummary(rows=9, tokens=900)
    world.succeed(0, data=data)
    world.one_pass()
    assert world.status.data == data


def test_checkpoints_are_healthy_until_one_is_not_stored() -> None:
    world = SimulatedCluster().running()
    world.seen = {"run": RunStatus(checkpoint=SAVED)}
    assert world.one_pass().urgent
    assert world.condition(ConditionType.CHECKPOINT_HEALTHY) == ("True", "CheckpointStored")
    world.seen = {"run": RunStatus(checkpoint=SAVED, checkpoint_error="503 Slow Down")}
    assert world.one_pass().urgent
    assert world.condition(ConditionType.CHECKPOINT_HEALTHY) == ("False", "CheckpointNotStored")
    assert "503 Slow Down" in world.message(ConditionType.CHECKPOINT_HEALTHY)
    assert world.status.phase == "Running"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, None), (0, "0s"), (45, "45s"), (60, "1m"), (3599, "59m"), (3900, "1h05m"), (86400, "1d00h"), (183600, "2d03h")],
)
def test_duration(seconds: int | None, text: str | None) -> None:
    assert duration(seconds) == text
