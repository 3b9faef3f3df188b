"""Several tasks with one encoder: losses and metrics of each task, one encoder in all exports, and training."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.support import corpora, tiny
from tests.support.learning import BERT, learn
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer, BertConfig, pipeline

from finetune_trainer import config
from finetune_trainer.data.loading.collate import Layout
from finetune_trainer.data.loading.dataloader import sample_generator
from finetune_trainer.data.loading.dataset import Sample
from finetune_trainer.data.records.row import Row
from finetune_trainer.inference.predict import main as predict
from finetune_trainer.models import tokenizer_training
from finetune_trainer.objectives.multi_task import MultiTask

ROWS = corpora.by_package(30)
TOKENIZER = tokenizer_training.train_tokenizer([row["text"] for row in ROWS], 500, adds_special_tokens=True)
TASKS: list[dict[str, Any]] = [
    {"name": "package", "type": "SequenceClassification"},
    {"name": "words", "type": "MaskedLM", "weight": 0.5},
]


def objective() -> MultiTask:
    sources = [{"source": "file:///nowhere", "task": task["name"]} for task in TASKS]
    made = MultiTask.from_spec(
        tiny.spec(objective={"type": "MultiTask", "tasks": TASKS}, data={"train": sources, "maxLength": 64}), TOKENIZER
    )
    made.encoder.set_statistics(made.encoder.collect_statistics(records))
    return made


def records() -> list[Row]:
    labelled = [Row(row, "rows", {"text": "text", "label": "label"}, "package") for row in ROWS]
    plain = [Row({"text": row["text"]}, "rows", {"text": "text"}, "words") for row in ROWS[::2]]
    return [record for both in zip(labelled[::2], plain, strict=True) for record in both]


def rows_of(made: MultiTask, found: list[Row]) -> list[Sample]:
    examples = [example for encoded in made.encoder.encode(found) for example in encoded.examples]
    return [{name: np.asarray(value) for name, value in example.items()} for example in examples]


def model(made: MultiTask) -> Any:
    torch.manual_seed(0)
    sizes = {name: value for name, value in BERT.items() if name != "model_type"} | {"vocab_size": len(TOKENIZER)}
    classes = {"SequenceClassification": AutoModelForSequenceClassification, "MaskedLM": AutoModelForMaskedLM}
    return made.build_model(
        lambda task: (
            classes[type(task).__name__].from_config(BertConfig(**(sizes | task.model_setup.config_overrides()))).eval()
        )
    )


def test_each_task_has_the_same_loss_as_alone() -> None:
    made = objective()
    learner, rows = model(made), rows_of(made, records())[:12]
    randoms = [sample_generator(1, 0, index) for index in range(len(rows))]
    batch = made.collator.collate(rows, randoms, Layout())
    sums, counts = made.loss.loss_sum(learner, batch), made.collator.count_terms(batch)
    assert counts[0] == sum(row["task"] == 0 for row in rows)
    for number, (name, task) in enumerate(made.tasks.items()):
        own = [index for index, row in enumerate(rows) if row["task"] == number]
        alone = task.collator.collate([rows[i] for i in own], [sample_generator(1, 0, i) for i in own], Layout())
        assert task.collator.count_terms(alone) == [counts[number]]
        weight = TASKS[number].get("weight", 1.0)
        assert sums[number].item() == pytest.approx(weight * task.loss.loss_sum(learner.models[name], alone).item(), rel=1e-5)
        assert task.loss.loss_sum(partial(learner, task=name), alone).item() == pytest.approx(sums[number].item() / weight)


def test_batch_without_rows_of_a_task_has_zero_loss_for_it() -> None:
    made = objective()
    learner = model(made)
    rows = [row for row in rows_of(made, records()) if row["task"] == 1][:3]
    batch = made.collator.collate(rows, [sample_generator(1, 0, index) for index in range(3)], Layout())
    assert made.collator.count_terms(batch)[0] == 0
    assert made.loss.loss_sum(learner, batch)[0].item() == 0
    made.loss.loss_sum(learner, batch).sum().backward()
    assert all(weight.grad is not None for weight in learner.models["package"].classifier.parameters())


def test_models_share_one_encoder() -> None:
    learner = model(objective())
    heads = sum(
        p.numel()
        for name in ("classifier", "cls")
        for m in learner.models.values()
        for p in getattr(m, name, torch.nn.Module()).parameters()
    )
    body = learner.models["package"].bert
    assert learner.models["words"].bert is body
    tied = body.embeddings.word_embeddings.weight
    assert learner.models["words"].cls.predictions.decoder.weight is tied
    assert sum(p.numel() for p in learner.parameters()) == sum(p.numel() for p in body.parameters()) + heads - tied.numel()


@pytest.mark.slow
def test_training_improves_the_metrics(tmp_path: Path) -> None:
    tasks = [
        TASKS[0],
        {"name": "topics", "type": "SequenceClassification", "sequenceClassification": {"problem": "MultiLabel"}},
    ]
    topics = tmp_path / "topics.jsonl"
    rows = [{"text": row["text"], "label": [row["label"]]} for row in corpora.by_package()]
    topics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [
        {"source": f"file://{tmp_path}/rows.jsonl", "task": "package"},
        {"source": f"file://{topics}", "task": "topics"},
    ]
    trained = learn(
        tmp_path, corpora.by_package(), objective={"type": "MultiTask", "tasks": tasks}, data={"train": sources},
        training={"maxSteps": 250},
    )  # fmt: skip
    assert trained.before["package.accuracy"] < 0.4 < 0.6 < trained.after["package.accuracy"]
    # All four topics for every row would be 0.4.
    assert trained.before["topics.microF1"] < 0.45 < 0.6 < trained.after["topics.microF1"]
    assert trained.after["loss"] == pytest.approx(trained.after["package.loss"] + trained.after["topics.loss"])
    folders = [trained.model / name for name in ("package", "topics")]
    text = corpora.by_package()[0]["text"]
    answers = [pipeline("text-classification", str(folder))(text, truncation=True)[0]["label"] for folder in folders]
    assert answers[0] in corpora.PACKAGES
    assert answers[1] in corpora.PACKAGES
    encoders = [AutoModelForSequenceClassification.from_pretrained(folder).bert.state_dict() for folder in folders]
    assert all(torch.equal(weight, encoders[1][name]) for name, weight in encoders[0].items())


def test_token_classification_and_question_answering_share_an_encoder(tmp_path: Path) -> None:
    tasks = [{"name": "words", "type": "TokenClassification"}, {"name": "answers", "type": "QuestionAnswering"}]
    rows = [tagged | asked for tagged, asked in zip(corpora.tagged(20), corpora.asked(20), strict=True)]
    trained = learn(
        tmp_path, rows, objective={"type": "MultiTask", "tasks": tasks}, data={"maxLength": 64}, training={"maxSteps": 10}
    )
    assert trained.after["words.loss"] < trained.before["words.loss"] - 0.1
    assert trained.after["answers.loss"] < trained.before["answers.loss"] - 0.1
    assert trained.after["loss"] == pytest.approx(trained.after["words.loss"] + trained.after["answers.loss"])
    assert {"words.microF1", "answers.exactMatch"} <= trained.after.keys()
    words, answers = (load_file(trained.model / name / "model.safetensors") for name in ("words", "answers"))
    encoder = [name for name in words if name.startswith("bert.")]
    assert len(encoder) > 30
    assert all(torch.equal(words[name], answers[name]) for name in encoder)
    documents = [json.loads((trained.model / name / "training/document.json").read_text()) for name in ("words", "answers")]
    alone = [config.TrainSpec.model_validate(document) for document in documents]
    assert [one.objective.type for one in alone] == ["TokenClassification", "QuestionAnswering"]
    assert [len(one.data.train) for one in alone] == [1, 1]
    asked = json.dumps({"question": rows[0]["question"], "context": rows[0]["context"]})
    assert predict([str(trained.model / "answers"), f"--input={asked}", f"--cache-dir={tmp_path}/cache"]) == 0
    # The tokenizer of words puts a blank before the first, that of texts leaves them as they are.
    for name, tokens in (("words", ["Ġself"]), ("answers", ["self"])):
        assert AutoTokenizer.from_pretrained(trained.model / name).tokenize("self") == tokens
