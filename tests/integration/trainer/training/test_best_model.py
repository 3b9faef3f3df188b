"""Early stopping and the export of the best model, also in a run that is interrupted and resumed."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.support import launch, ranks

from finetune_trainer.protocol.outcome import EXIT_POLICIES, Reason
from finetune_trainer.training.engine import merge

# Random words cannot be predicted: what a model learns of these rows beyond word frequencies raises the loss of others.
OVERFITTING: dict[str, Any] = {
    "data": {"evaluationFraction": 0.5},
    "training": {
        "maxSteps": 100, "earlyStopping": {"patience": 3},
        "optimizer": {"learningRate": 0.02}, "schedule": {"type": "Constant"},
    },
    "evaluation": {"everySteps": 2},
    "checkpoint": {"everySteps": 3, "keepLast": 1},
    "export": {"best": True},
}  # fmt: skip
LORA: dict[str, Any] = {"method": {"type": "LoRA", "lora": {"rank": 8}}, "deepspeed": {"zeroStage": 1}}


def prepare(folder: Path, *changes: dict[str, Any]) -> Path:
    folder.mkdir()
    document = launch.write_document(folder)
    generator = random.Random(5)
    rows = [{"text": " ".join(generator.choices(launch.WORDS, k=8))} for _ in range(48)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = json.loads(document.read_text())
    for change in changes:
        content = merge(content, change)
    document.write_text(json.dumps(content))
    return document


def pretrained_model(folder: Path) -> dict[str, Any]:
    document = prepare(folder, {"training": {"maxSteps": 1}})
    assert ranks.run(launch.run_rank, 1, document)[0].code == 0
    return {
        "model": {"source": f"file://{folder}/storage/model", "initialization": "Pretrained", "tokenizer": None, "config": {}}
    }


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "storage/model/model.safetensors")


def committed_steps(folder: Path) -> list[int]:
    return sorted(int(file.stem.removeprefix("step-")) for file in (folder / "storage/manifests").iterdir())


@pytest.mark.parametrize(("size", "changes"), [(2, {"deepspeed": {"zeroStage": 3}}), (1, LORA)], ids=["ZeRO-3", "LoRA"])
def test_exports_the_best_model(size: int, changes: dict[str, Any], tmp_path: Path) -> None:
    start = pretrained_model(tmp_path / "start") if "method" in changes else {}
    results = ranks.run(launch.run_rank, size, prepare(tmp_path / "straight", OVERFITTING, changes, start))
    assert [result.code for result in results] == [0] * size, results[0].outcome.message
    outcome = results[0].outcome
    last = outcome.progress.step
    assert last < 100
    assert (outcome.progress.percent, outcome.progress.total_steps) == (100, last)
    best = last - 3 * 2
    assert outcome.message.startswith(
        f"trained {last} steps and stopped early: evaluation loss has not improved in 3 evaluations since step {best} "
    )
    assert f"the best model, from step {best}, is at file://" in outcome.message
    evaluated = {event.step: event.metrics["loss"] for event in results[0].events if event.event == "evaluated"}
    assert min(evaluated, key=lambda step: evaluated[step]) == best
    assert outcome.metrics["evalLoss"] == evaluated[best] < evaluated[last]
    assert committed_steps(tmp_path / "straight") == [best, last]

    best_only = {"training": {"maxSteps": best, "earlyStopping": None}, "export": {"best": False}}
    ranks.run(launch.run_rank, size, prepare(tmp_path / "only", OVERFITTING, changes, start, best_only))
    expected = load_weights(tmp_path / "only")
    for name, tensor in load_weights(tmp_path / "straight").items():
        torch.testing.assert_close(tensor, expected[name], msg=name)

    document = prepare(tmp_path / "resumed", OVERFITTING, changes, start)
    stopped = ranks.run(launch.run_rank, size, document, {0: (signal.SIGTERM, last - 3)})
    assert [result.code for result in stopped] == [EXIT_POLICIES[Reason.PREEMPTED].exit_code] * size
    resumed = ranks.run(launch.run_rank, size, document)
    assert resumed[0].outcome.message == outcome.message.replace("straight", "resumed")
    for name, tensor in load_weights(tmp_path / "resumed").items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


def test_exports_the_next_best_model_if_the_best_checkpoint_is_corrupt(tmp_path: Path) -> None:
    document = prepare(tmp_path / "run", OVERFITTING, {"checkpoint": {"keepLast": 50}})
    first = ranks.run(launch.run_rank, 1, document)[0]
    steps = committed_steps(tmp_path / "run")
    best = first.outcome.progress.step - 6
    for file in (tmp_path / "run/storage/checkpoints").glob(f"step-{best:08d}-*/*.pt"):
        file.write_bytes(b"resumed")
    second = ranks.run(launch.run_rank, 1, document)[0]
    losses = {}
    for event in first.events:
        if event.event == "evaluated" and event.step in steps:
            losses[event.step] = event.metrics["loss"]
    next_best = sorted(losses, key=lambda step: losses[step])[1]
    assert second.outcome.metrics["evalLoss"] == losses[next_best]
