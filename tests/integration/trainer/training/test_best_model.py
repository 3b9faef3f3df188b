"""A run ends when it no longer improves, and exports the best of its models; broken off and resumed, it does the same."""

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

# Words at random cannot be foreseen: whatever is learnt of these rows beyond how often words occur makes others worse.
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
    document = launch.prepare(folder)
    draw = random.Random(5)
    rows = [{"text": " ".join(draw.choices(launch.WORDS, k=8))} for _ in range(48)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = json.loads(document.read_text())
    for change in changes:
        content = merge(content, change)
    document.write_text(json.dumps(content))
    return document


def pretrained(folder: Path) -> dict[str, Any]:
    document = prepare(folder, {"training": {"maxSteps": 1}})
    assert ranks.run(launch.live, 1, document)[0].code == 0
    return {
        "model": {"source": f"file://{folder}/storage/model", "initialization": "Pretrained", "tokenizer": None, "config": {}}
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "storage/model/model.safetensors")


def committed(folder: Path) -> list[int]:
    return sorted(int(file.stem.removeprefix("step-")) for file in (folder / "storage/manifests").iterdir())


@pytest.mark.parametrize(("size", "changes"), [(2, {"deepspeed": {"zeroStage": 3}}), (1, LORA)], ids=["ZeRO-3", "LoRA"])
def test_the_best_model_is_exported(size: int, changes: dict[str, Any], tmp_path: Path) -> None:
    start = pretrained(tmp_path / "start") if "method" in changes else {}
    heard = ranks.run(launch.live, size, prepare(tmp_path / "straight", OVERFITTING, changes, start))
    assert [one.code for one in heard] == [0] * size, heard[0].outcome.message
    outcome = heard[0].outcome
    last = outcome.progress.step
    assert last < 100
    assert (outcome.progress.percent, outcome.progress.total_steps) == (100, last)
    best = last - 3 * 2
    assert outcome.message.startswith(
        f"trained {last} steps and stopped early: evaluation loss has not improved in 3 evaluations since step {best} "
    )
    assert f"the best model, from step {best}, is at file://" in outcome.message
    evaluated = {one.step: one.metrics["loss"] for one in heard[0].events if one.event == "evaluated"}
    assert min(evaluated, key=lambda step: evaluated[step]) == best
    assert outcome.metrics["evalLoss"] == evaluated[best] < evaluated[last]
    assert committed(tmp_path / "straight") == [best, last]

    only = {"training": {"maxSteps": best, "earlyStopping": None}, "export": {"best": False}}
    ranks.run(launch.live, size, prepare(tmp_path / "only", OVERFITTING, changes, start, only))
    wanted = weights(tmp_path / "only")
    for name, tensor in weights(tmp_path / "straight").items():
        torch.testing.assert_close(tensor, wanted[name], msg=name)

    document = prepare(tmp_path / "broken", OVERFITTING, changes, start)
    stopped = ranks.run(launch.live, size, document, {0: (signal.SIGTERM, last - 3)})
    assert [one.code for one in stopped] == [EXIT_POLICIES[Reason.PREEMPTED].exit_code] * size
    resumed = ranks.run(launch.live, size, document)
    assert resumed[0].outcome.message == outcome.message.replace("straight", "broken")
    for name, tensor in weights(tmp_path / "broken").items():
        torch.testing.assert_close(tensor, wanted[name], msg=name)


def test_the_next_best_is_exported_if_the_best_is_lost(tmp_path: Path) -> None:
    document = prepare(tmp_path / "run", OVERFITTING, {"checkpoint": {"keepLast": 50}})
    first = ranks.run(launch.live, 1, document)[0]
    steps = committed(tmp_path / "run")
    best = first.outcome.progress.step - 6
    for file in (tmp_path / "run/storage/checkpoints").glob(f"step-{best:08d}-*/*.pt"):
        file.write_bytes(b"broken")
    second = ranks.run(launch.live, 1, document)[0]
    losses = {one.step: one.metrics["loss"] for one in first.events if one.event == "evaluated" and one.step in steps}
    next_best = sorted(losses, key=lambda step: losses[step])[1]
    assert second.outcome.metrics["evalLoss"] == losses[next_best]


def test_an_unknown_metric_is_refused_at_the_first_evaluation(tmp_path: Path) -> None:
    document = prepare(tmp_path / "run", OVERFITTING, {"evaluation": {"metric": "accuracy"}})
    heard = ranks.run(launch.live, 1, document)[0]
    assert heard.outcome.reason is Reason.INVALID_CONFIGURATION
    assert heard.outcome.message == "spec.evaluation.metric: accuracy is not reported: choose one of loss, perplexity"
