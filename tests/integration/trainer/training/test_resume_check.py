"""Runs that resume with another length or other data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support import launch, ranks
from tests.support.launch import RankResult

from finetune_trainer.protocol.outcome import Reason


def run(folder: Path, max_steps: int, **changes: Any) -> RankResult:
    folder.mkdir(exist_ok=True)
    training = {"maxSteps": max_steps, "schedule": {"type": "Constant"}}
    document = launch.write_document(folder, training=training, evaluation={"everySteps": 4}, **changes)
    return ranks.run(launch.run_rank, 1, document)[0]


def losses(folder: Path) -> dict[int, float]:
    points = [json.loads(line) for line in (folder / "storage/model/training/history.jsonl").read_text().splitlines()]
    return {point["step"]: point["loss"] for point in points if "loss" in point}


def test_a_prolonged_run_equals_a_long_one_and_its_data_may_not_change(tmp_path: Path) -> None:
    assert run(tmp_path / "long", 24).code == 0
    folder = tmp_path / "short"
    assert run(folder, 12).code == 0
    prolonged = run(folder, 24, checkpoint={"keepLast": 1})
    assert prolonged.code == 0
    assert losses(folder) == losses(tmp_path / "long")
    assert prolonged.outcome.resumed == "the run is prolonged from 12 to 24 steps: the learning rate stays at 0.01"

    shortened = run(folder, 14)
    assert shortened.outcome.reason is Reason.INVALID_CONFIGURATION
    assert shortened.outcome.message.startswith("spec.training.maxSteps: the run in ")

    (folder / "train.jsonl").write_text('{"text": "other rows"}\n' * 300)
    document = json.loads((folder / "train.json").read_text())
    document["training"]["maxSteps"] = 24
    (folder / "train.json").write_text(json.dumps(document))
    changed = ranks.run(launch.run_rank, 1, folder / "train.json")[0]
    assert changed.outcome.reason is Reason.INVALID_DATA
    assert changed.outcome.message.startswith("spec.data.train[0].source: train.jsonl changed since the run in file://")
    assert changed.activities == ["Starting", "Preparing"]
