"""Each method on an encoder that several tasks share: the export of each task computes what was trained."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.support import corpora, launch, ranks
from tests.support.learning import BERT, LearningResult, learn
from tests.support.slow import slow
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel

from finetune_trainer.models.tokenizer_training import train_tokenizer
from finetune_trainer.protocol.outcome import Reason
from finetune_trainer.training.engine import merge

TASKS: list[dict[str, Any]] = [
    {"name": "package", "type": "SequenceClassification"},
    {"name": "habits", "type": "SequenceClassification", "sequenceClassification": {"problem": "MultiLabel"}},
]
PARTITIONED = {"zeroStage": 3, "config": {"zero_optimization": {"stage3_param_persistence_threshold": 0}}}
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "LoRA": (2, {"method": {"type": "LoRA", "lora": {"rank": 8}}, "deepspeed": PARTITIONED}),
    "QLoRA": (1, {"method": {"type": "LoRA", "lora": {"quantization": "NF4"}}, "deepspeed": {"zeroStage": 0}}),
    "IA3": (1, {"method": {"type": "IA3"}}),
    "Bottleneck": (2, {"method": {"type": "Bottleneck", "bottleneck": {"size": 16}}, "deepspeed": {"zeroStage": 2}}),
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder whose random weights are so large that its outputs depend on them."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = train_tokenizer([row["text"] for row in corpora.by_package(60)], 500, adds_special_tokens=True)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    settings = BERT | {"hidden_size": 32, "intermediate_size": 64, "vocab_size": 500, "initializer_range": 0.3}
    BertModel(BertConfig(**settings)).save_pretrained(folder)
    return folder


def task_rows() -> dict[str, list[dict[str, Any]]]:
    """The rows of each task; every fourth is for the evaluation."""
    return {"package": corpora.by_package(15), "habits": corpora.by_habit()[::12]}


def train(encoder: Path, folder: Path, size: int, changes: dict[str, Any]) -> LearningResult:
    document: dict[str, Any] = {
        "model": {"source": f"file://{encoder}"},
        "objective": {"type": "MultiTask", "tasks": TASKS},
        "training": {"maxSteps": 4, "batchSize": 16, "optimizer": {"learningRate": 0.03}},
        "data": {"train": [], "evaluation": [], "evaluationFraction": None, "maxLength": 48},
    }  # fmt: skip
    for task, rows in task_rows().items():
        for split, part in (("train", rows[::2] + rows[1::4]), ("evaluation", rows[3::4])):
            file = folder / f"{task}-{split}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in part))
            document["data"][split].append({"source": f"file://{file}", "task": task})
    return learn(folder, [], size, **merge(document, changes))


@pytest.mark.parametrize("name", CASES)
def test_exports_what_was_trained_for_each_task(name: str, encoder: Path, tmp_path: Path) -> None:
    rows, result = task_rows(), train(encoder, tmp_path, *CASES[name])
    assert result.after["loss"] != pytest.approx(result.before["loss"], rel=0.03), "the training changed the outputs"
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


@pytest.mark.parametrize("size", [1, slow(2)])
def test_resumes_a_stopped_run_exactly(size: int, encoder: Path, tmp_path: Path) -> None:
    _, changes = CASES["LoRA"]
    uninterrupted = train(encoder, tmp_path, size, changes | {"evaluation": {"atStart": False}})
    document = json.loads((tmp_path / "train.json").read_text())
    document["checkpoint"]["storage"] = f"file://{tmp_path}/broken/storage"
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/train.json").write_text(json.dumps(document))
    stopped = ranks.run(launch.run_rank, size, tmp_path / "broken/train.json", {size - 1: (signal.SIGTERM, 2)})
    assert [rank.outcome.reason for rank in stopped] == [Reason.PREEMPTED] * size
    resumed = ranks.run(launch.run_rank, size, tmp_path / "broken/train.json")
    assert [rank.code for rank in resumed] == [0] * size
    for task in task_rows():
        weights, resumed_weights = (
            load_file(model / task / "model.safetensors") for model in (uninterrupted.model, tmp_path / "broken/storage/model")
        )
        assert weights.keys() == resumed_weights.keys()
        assert all(torch.equal(weights[key], resumed_weights[key]) for key in weights)
