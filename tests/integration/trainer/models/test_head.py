"""A finished classifier as the source: its head is kept with its names, or starts anew."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support import tiny
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2ForSequenceClassification,
    RobertaForSequenceClassification,
)

from finetune_trainer.config import TrainSpec
from finetune_trainer.data.preprocessing.prepare import prepare
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.models.assembly import build_objective
from finetune_trainer.models.loading import load_model
from finetune_trainer.objectives import Objective
from finetune_trainer.storage.base import Credentials

ORDER = ["positive", "neutral", "negative"]
SIZE = {
    "vocab_size": tiny.VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
WORDS = torch.tensor([[1, 2, 3, 4]])


def save(folder: Path, names: list[str] | None, model_class: Any = BertForSequenceClassification) -> Any:
    """A model with these labels, in the folder."""
    torch.manual_seed(1)
    labels = (
        {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}} if names else {}
    )
    model = model_class(model_class.config_class(**SIZE, **labels)).eval()
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return model


def load(folder: Path, values: list[Any], task: str = "SequenceClassification", **options: Any) -> tuple[Any, Objective, Any]:
    """The model in the folder as it goes on training on rows with these labels; with its objective and the prepared data."""
    column = {"SequenceClassification": "text", "TokenClassification": "tokens"}[task]
    label = "tags" if column == "tokens" else "label"
    text: Any = ["w1", "w2"] if column == "tokens" else "w1 w2"
    (folder / "rows.jsonl").write_text("".join(json.dumps({column: text, label: value}) + "\n" for value in values))
    field = task[0].lower() + task[1:]
    spec = TrainSpec.model_validate(
        {
            "model": {"source": f"file://{folder}"},
            "data": {"train": [{"source": f"file://{folder}/rows.jsonl"}]},
            "objective": {"type": task, field: options},
            "checkpoint": {"storage": "file:///nowhere"},
        }
    )
    resolver = SourceResolver(spec.objective, folder / "cache", Credentials())
    objective = build_objective(spec, resolver)
    prepared = prepare(spec, objective.encoder, resolver)
    model = load_model(
        spec.model, objective, dtype=torch.float32, cache=resolver.cache, credentials=resolver.credentials, seed=0
    )
    return model.eval(), objective, prepared


def predict(model: Any) -> str:
    """The name of the most likely label of the words."""
    with torch.no_grad():
        return str(model.config.id2label[int(model(input_ids=WORDS).logits[0].argmax())])


@pytest.mark.parametrize(
    "model_class", [BertForSequenceClassification, RobertaForSequenceClassification, GPT2ForSequenceClassification]
)
def test_predictions_keep_their_names(tmp_path: Path, model_class: Any) -> None:
    source = save(tmp_path, ORDER, model_class)
    model, objective, prepared = load(tmp_path, ["negative", "neutral", "positive"])
    assert list(model.config.id2label.values()) == ORDER
    torch.testing.assert_close(model(input_ids=WORDS).logits, source(input_ids=WORDS).logits)
    assert [prepared.train[row]["target"].tolist() for row in range(3)] == [[2.0], [1.0], [0.0]]
    assert predict(model) == predict(source)
    assert objective.notes == []


@pytest.mark.parametrize(
    ("names", "labels", "options", "kept"),
    [
        (ORDER, ["Negative", "neutral", "POSITIVE"], {}, ["POSITIVE", "neutral", "Negative"]),
        (ORDER, ["negative", "positive"], {"labels": ["negative", "neutral", "positive"]}, ORDER),
        (["LABEL_0", "LABEL_1", "LABEL_2"], [2, 1, 0], {}, ["0", "1", "2"]),
        (["LABEL_0", "LABEL_1"], ["good", "bad"], {"labels": ["good", "bad"]}, ["good", "bad"]),
        (ORDER, [["neutral"], ["positive", "negative"]], {"problem": "MultiLabel"}, ORDER),
        (ORDER, [[0, 1, 1], [1, 0, 0]], {"problem": "MultiLabel"}, ORDER),
        (["score"], [0.5, 2], {"problem": "Regression"}, ["LABEL_0"]),
    ],
)  # fmt: skip
def test_keeps_the_head_of_the_same_labels(
    tmp_path: Path, names: list[str], labels: list[Any], options: dict[str, Any], kept: list[str]
) -> None:
    source = save(tmp_path, names)
    model, objective, _ = load(tmp_path, labels, **options)
    assert list(model.config.id2label.values()) == kept
    assert torch.equal(model.classifier.weight, source.classifier.weight)
    reordered = "labels" in options and options["labels"] != kept
    assert [note.partition(":")[0] for note in objective.notes] == ["spec.objective.sequenceClassification.labels"] * reordered


@pytest.mark.parametrize(
    ("names", "labels", "options", "note"),
    [
        (ORDER, ["good", "bad", "fair"], {}, "its head is for the labels positive, neutral, negative, and this run has ba"),
        (ORDER, [0, 1, 2], {}, "its head is for the labels positive, neutral, negative, and this run has"),
        (ORDER, ["positive", "negative"], {}, "its head has 3 outputs (positive, neutral, negative), and this run has"),
        (["LABEL_0", "LABEL_1"], ["good", "bad"], {}, "its head does not name its 2 outputs, and this run"),
        (ORDER, [0.5, 1.5], {"problem": "Regression"}, "its head has 3 outputs (positive, neutral, negative), and this run"),
    ],
)  # fmt: skip
def test_starts_another_head_and_says_so(
    tmp_path: Path, names: list[str], labels: list[Any], options: dict[str, Any], note: str
) -> None:
    source = save(tmp_path, names)
    model, objective, _ = load(tmp_path, labels, **options)
    again, *_ = load(tmp_path, labels, **options)
    old, new = source.classifier.weight, model.classifier.weight
    assert old.shape != new.shape or not torch.isclose(old, new).any()
    assert torch.equal(new, again.classifier.weight), "the weights depend on the seed alone"
    assert not model.classifier.bias.any()
    assert torch.equal(model.bert.pooler.dense.weight, source.bert.pooler.dense.weight)
    [sentence] = objective.notes
    assert sentence.startswith(f"spec.model.source: {note}")
    assert sentence.endswith(": the head starts with new weights")


def test_keeps_the_order_of_tags(tmp_path: Path) -> None:
    source = save(tmp_path, ["B-X", "O", "I-X"], BertForTokenClassification)
    model, objective, _ = load(tmp_path, [["B-X", "I-X"], ["O", "O"]], "TokenClassification")
    assert torch.equal(model.classifier.weight, source.classifier.weight)
    assert list(model.config.id2label.values()) == ["B-X", "O", "I-X"]
    assert objective.notes == []


def test_starts_a_new_head_after_another_task(tmp_path: Path) -> None:
    source = save(tmp_path, ["a", "b"], BertForTokenClassification)
    model, objective, _ = load(tmp_path, ["b", "a"])
    assert list(model.config.id2label.values()) == ["a", "b"]
    assert not torch.isclose(model.classifier.weight, source.classifier.weight).any()
    [note] = objective.notes
    assert note.startswith("spec.model.source: its head is one of another task (BertForTokenClassification)")


def test_pretrained_model_without_a_head_has_no_note(tmp_path: Path) -> None:
    save(tmp_path, None, BertForMaskedLM)
    _, objective, _ = load(tmp_path, ["b", "a"])
    assert objective.notes == []


def test_task_keeps_its_head(tmp_path: Path) -> None:
    source = save(tmp_path, ORDER)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": "w1", "label": name}) + "\n" for name in ORDER))
    spec = TrainSpec.model_validate(
        {
            "model": {"source": f"file://{tmp_path}"},
            "data": {"train": [{"source": f"file://{tmp_path}/rows.jsonl", "task": "mood"}]},
            "objective": {"type": "MultiTask", "tasks": [{"name": "mood", "type": "SequenceClassification"}]},
            "checkpoint": {"storage": "file:///nowhere"},
        }
    )
    resolver = SourceResolver(spec.objective, tmp_path / "cache", Credentials())
    objective = build_objective(spec, resolver)
    prepare(spec, objective.encoder, resolver)
    load_task = partial(
        load_model, spec.model, dtype=torch.float32, cache=resolver.cache, credentials=resolver.credentials, seed=0
    )
    model = objective.build_model(load_task).models["mood"]
    assert list(model.config.id2label.values()) == ORDER
    assert torch.equal(model.classifier.weight, source.classifier.weight)
