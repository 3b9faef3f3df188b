"""Complete ranks, from the document to the exit code: stored files, events and error messages."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.support import launch, ranks
from transformers import pipeline

from finetune_trainer.protocol.outcome import EXIT_POLICIES, Reason


def read_history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "storage/model/training/history.jsonl").read_text().splitlines()]


def test_a_repeated_run_changes_nothing(tmp_path: Path) -> None:
    document = launch.write_document(
        tmp_path, deepspeed={"zeroStage": 3}, evaluation={"generation": {"prompts": ["the cat", "one"], "maxNewTokens": 4}}
    )
    first, second = ranks.run(launch.run_rank, 2, document)
    assert (first.code, second.code) == (0, 0)
    assert first.activities == [
        "Starting",
        "Preparing",
        "Loading",
        "Training",
        "Evaluating",
        "Training",
        "Evaluating",
        "Training",
        "Saving",
        "Exporting",
    ]
    steps = [event for event in first.events if event.event == "step"]
    assert [step.progress.step for step in steps] == list(range(1, 7))
    assert steps[-1].progress.percent == 100
    assert steps[-1].progress.loss < steps[0].progress.loss
    assert {event.event for event in second.events} - {"beat"} == {"alive", "step_time", "ended"}
    outcome = first.outcome
    assert outcome.reason is Reason.COMPLETE
    assert outcome.model == f"file://{tmp_path}/storage/model"
    assert outcome.metrics.keys() == {"loss", "evalLoss", "perplexity"}
    assert outcome.checkpoint is not None
    assert outcome.checkpoint.step == 6

    model = tmp_path / "storage/model"
    assert pipeline("text-generation", str(model))("the cat", max_new_tokens=2)[0]["generated_text"].startswith("the cat")
    assert [sample["prompt"] for sample in json.loads((model / "training/samples.json").read_text())] == ["the cat", "one"]
    assert [(point["step"], *sorted(point)[:1]) for point in read_history(tmp_path)] == [
        (1, "learningRate"), (2, "learningRate"), (3, "learningRate"), (3, "evaluation"), (4, "learningRate"),
        (5, "learningRate"), (6, "learningRate"), (6, "evaluation"),
    ]  # fmt: skip
    stored = {file: file.read_bytes() for file in model.rglob("*") if file.is_file()}

    repeated = ranks.run(launch.run_rank, 2, document)
    assert [result.code for result in repeated] == [0, 0]
    assert not [event for event in repeated[0].events if event.event in ("step", "evaluated", "checkpoint_stored")]
    assert repeated[0].outcome.metrics == outcome.metrics
    assert repeated[0].outcome.resumed == "all 6 steps were trained before: the model is exported again"
    assert {file: file.read_bytes() for file in model.rglob("*") if file.is_file()} == stored


def test_a_stopped_and_resumed_run_has_the_same_history(tmp_path: Path) -> None:
    straight_folder, resumed_folder = tmp_path / "straight", tmp_path / "resumed"
    straight_folder.mkdir()
    resumed_folder.mkdir()
    changes = {"training": {"maxSteps": 30}}
    ranks.run(launch.run_rank, 2, launch.write_document(straight_folder, **changes))
    document = launch.write_document(resumed_folder, **changes)
    stopped = ranks.run(launch.run_rank, 2, document, {1: (signal.SIGTERM, 4)})
    assert [result.code for result in stopped] == [EXIT_POLICIES[Reason.PREEMPTED].exit_code] * 2
    assert stopped[0].outcome.message == stopped[1].outcome.message
    last_event = stopped[0].events[-2]
    last_step = last_event.progress.step if last_event.event == "step" else None
    resumed = ranks.run(launch.run_rank, 2, document)
    assert [result.code for result in resumed] == [0, 0]
    steps = [event.progress.step for event in resumed[0].events if event.event == "step"]
    assert steps[0] > 4
    assert last_step is None or steps[0] == last_step + 1
    assert read_history(resumed_folder) == read_history(straight_folder)


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"training": {"batchSize": 7}}, Reason.INVALID_CONFIGURATION, "spec.training.batchSize: batchSize must"),
        ({"training": {"precision": "Float16"}}, Reason.INVALID_CONFIGURATION, "spec.training.precision: Float16 needs a GPU"),
        ({"data": {"train": [{"source": "file:///nowhere.jsonl"}]}}, Reason.INVALID_DATA, "spec.data.train[0].source"),
        ({"checkpoint": {"storage": "file:///dev/null/below"}}, None, "spec.checkpoint.storage"),
        ({"export": {"storage": "file:///dev/null/below"}}, None, "spec.export.storage"),
        (
            {"training": {"optimizer": {"learningRate": 1e30}, "maxGradientNorm": 0, "maxSteps": 20}},
            Reason.NON_FINITE_LOSS,
            "spec.training.optimizer.learningRate",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, Reason) else None,
)
def test_reports_errors_before_training(changes: dict[str, Any], reason: Reason | None, message: str, tmp_path: Path) -> None:
    result = ranks.run(launch.run_rank, 1, launch.write_document(tmp_path, **changes))[0]
    assert message in result.outcome.message
    assert reason in (None, result.outcome.reason)
    assert result.code == result.outcome.exit_policy.exit_code != 0
    if reason is not Reason.NON_FINITE_LOSS:
        assert "Training" not in result.activities


def test_rejects_the_storage_of_another_run(tmp_path: Path) -> None:
    assert ranks.run(launch.run_rank, 1, launch.write_document(tmp_path))[0].code == 0
    stored = {file: file.read_bytes() for file in (tmp_path / "storage").rglob("*") if file.is_file()}
    result = ranks.run(launch.run_rank, 1, launch.write_document(tmp_path, training={"seed": 7}))[0]
    assert result.outcome.reason is Reason.INVALID_CONFIGURATION
    assert "spec.training.seed" in result.outcome.message
    assert {file: file.read_bytes() for file in (tmp_path / "storage").rglob("*") if file.is_file()} == stored


def test_a_lost_peer_is_reported_as_rendezvous_failure(tmp_path: Path) -> None:
    document = launch.write_document(tmp_path, training={"maxSteps": 1000})
    processes, connections = ranks.start(launch.run_rank, 2, document, {1: (signal.SIGKILL, 3)})
    assert connections[0].poll(120)
    returned, result = connections[0].recv()
    assert returned
    assert result.outcome.reason is Reason.RENDEZVOUS_FAILED, result.outcome
    for process in processes:
        process.join(10)
