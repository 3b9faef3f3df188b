"""Whole ranks, from the document to the exit code: what they leave behind, and what they say when it goes wrong."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.support import launch, ranks
from transformers import pipeline

from finetune_trainer.protocol.outcome import EXIT_POLICIES, Reason


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "storage/model/training/history.jsonl").read_text().splitlines()]


def test_a_run_and_the_same_again(tmp_path: Path) -> None:
    document = launch.prepare(
        tmp_path, deepspeed={"zeroStage": 3}, evaluation={"generation": {"prompts": ["the cat", "one"], "maxNewTokens": 4}}
    )
    first, second = ranks.run(launch.live, 2, document)
    assert (first.code, second.code) == (0, 0)
    assert first.activities == [
        "Starting",
        "Preparing",
        "Training",
        "Evaluating",
        "Training",
        "Evaluating",
        "Training",
        "Exporting",
    ]
    steps = [event for event in first.events if event.event == "step"]
    assert [step.progress.step for step in steps] == list(range(1, 7))
    assert steps[-1].progress.percent == 100
    assert steps[-1].progress.loss < steps[0].progress.loss
    assert {event.event for event in second.events} == {"alive", "step_time", "ended"}
    outcome = first.outcome
    assert outcome.reason is Reason.COMPLETE
    assert outcome.model == f"file://{tmp_path}/storage/model"
    assert outcome.metrics.keys() == {"loss", "evalLoss", "perplexity"}
    assert outcome.checkpoint is not None
    assert outcome.checkpoint.step == 6

    model = tmp_path / "storage/model"
    assert pipeline("text-generation", str(model))("the cat", max_new_tokens=2)[0]["generated_text"].startswith("the cat")
    assert [sample["prompt"] for sample in json.loads((model / "training/samples.json").read_text())] == ["the cat", "one"]
    assert [(point["step"], *sorted(point)[:1]) for point in history(tmp_path)] == [
        (1, "learningRate"), (2, "learningRate"), (3, "learningRate"), (3, "evaluation"), (4, "learningRate"),
        (5, "learningRate"), (6, "learningRate"), (6, "evaluation"),
    ]  # fmt: skip
    stored = {file: file.read_bytes() for file in model.rglob("*") if file.is_file()}

    again = ranks.run(launch.live, 2, document)
    assert [heard.code for heard in again] == [0, 0]
    assert not [event for event in again[0].events if event.event in ("step", "evaluated", "checkpoint_stored")]
    assert again[0].outcome.metrics == outcome.metrics
    assert {file: file.read_bytes() for file in model.rglob("*") if file.is_file()} == stored


def test_told_to_stop_and_resumed_it_learns_the_same(tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    straight.mkdir()
    broken.mkdir()
    changes = {"training": {"maxSteps": 30}}
    ranks.run(launch.live, 2, launch.prepare(straight, **changes))
    document = launch.prepare(broken, **changes)
    stopped = ranks.run(launch.live, 2, document, {1: (signal.SIGTERM, 4)})
    assert [heard.code for heard in stopped] == [EXIT_POLICIES[Reason.PREEMPTED].exit_code] * 2
    assert stopped[0].outcome.message == stopped[1].outcome.message
    at = stopped[0].events[-2].progress.step if stopped[0].events[-2].event == "step" else None
    resumed = ranks.run(launch.live, 2, document)
    assert [heard.code for heard in resumed] == [0, 0]
    steps = [event.progress.step for event in resumed[0].events if event.event == "step"]
    assert steps[0] > 4
    assert at is None or steps[0] == at + 1
    assert history(broken) == history(straight)


@pytest.mark.parametrize(
    ("changes", "reason", "sentence"),
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
def test_what_cannot_be_done_is_said(changes: dict[str, Any], reason: Reason | None, sentence: str, tmp_path: Path) -> None:
    heard = ranks.run(launch.live, 1, launch.prepare(tmp_path, **changes))[0]
    assert sentence in heard.outcome.message
    assert reason in (None, heard.outcome.reason)
    assert heard.code == heard.outcome.exit_policy.exit_code != 0
    if reason is not Reason.NON_FINITE_LOSS:
        assert "Training" not in heard.activities


def test_another_runs_storage_is_refused(tmp_path: Path) -> None:
    assert ranks.run(launch.live, 1, launch.prepare(tmp_path))[0].code == 0
    heard = ranks.run(launch.live, 1, launch.prepare(tmp_path, training={"seed": 7}))[0]
    assert heard.outcome.reason is Reason.INVALID_CONFIGURATION
    assert "seed" in heard.outcome.message


def test_a_lost_peer_is_a_failed_rendezvous(tmp_path: Path) -> None:
    document = launch.prepare(tmp_path, training={"maxSteps": 1000})
    processes, ends = ranks.start(launch.live, 2, document, {1: (signal.SIGKILL, 3)})
    assert ends[0].poll(120)
    returned, heard = ends[0].recv()
    assert returned
    assert heard.outcome.reason is Reason.RENDEZVOUS_FAILED, heard.outcome
    for process in processes:
        process.join(10)
