"""The reports in the exported folder: numbers, plots and the model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from PIL import Image
from tests.support import corpora, launch, ranks, tiny
from tests.support.learning import learn

from finetune_trainer import objectives
from finetune_trainer.export import reports
from finetune_trainer.export.model_card import write_card
from finetune_trainer.tracking import plots
from finetune_trainer.tracking.history import History


def file_names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_plots_the_reported_metrics(tmp_path: Path) -> None:
    history = History()
    history.add(1, 2.0, 0.1)
    reports.write_curves(tmp_path / "loss", history)
    assert file_names(tmp_path / "loss") == {"history.jsonl", "loss.png"}
    history.add_evaluation(1, {"loss": 2.5})
    reports.write_curves(tmp_path / "evaluation loss", history)
    assert file_names(tmp_path / "evaluation loss") == {"history.jsonl", "loss.png"}
    history.add_evaluation(0, {"loss": 3.0, "fewShot.loss": 2.5, "fewShot.accuracy": 0.4})
    for step in (2, 3):
        history.add_evaluation(step, {"loss": 2.5, "accuracy": 1 / step, "f1[a]": 0.5, "f1[b]": 0.25, "topic.loss": 1.0})
    reports.write_curves(tmp_path / "metrics", history)
    assert file_names(tmp_path / "metrics") == {"history.jsonl", "loss.png", "metrics.png"}
    with Image.open(tmp_path / "metrics/metrics.png") as plot:
        assert plot.size == (1200, 300), "accuracy, f1 of each label, and topic.loss, side by side"


@pytest.mark.parametrize(("labels", "side"), [(2, 390), (4, 480), (30, 1650), (100, 2100)])
def test_plots_confusion_matrices_of_every_size(labels: int, side: int, tmp_path: Path) -> None:
    counts = [[row * column % 7 for column in range(labels)] for row in range(labels)]
    names = [f"a label with a long name {number}" for number in range(labels)]
    plots.plot_confusion({"labels": names, "counts": counts}, tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as plot:
        assert plot.size == (side + 100, side)


def test_the_confusion_matrix_survives_a_restart(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "objective": {"type": "SequenceClassification"}, "training": {"maxSteps": 4}, "evaluation": {"everySteps": 2},
        "checkpoint": {"credentials": "our-secret"},
    }  # fmt: skip
    model = learn(tmp_path, corpora.by_package(20), **changes).model
    before = {file.name: file.read_bytes() for file in (model / "training").iterdir()}
    table = json.loads(before["confusion.json"])
    assert table["labels"] == list(corpora.PACKAGES)
    correct = sum(table["counts"][label][label] for label in range(4))
    rows = sum(map(sum, table["counts"]))
    assert correct / rows == json.loads(before["metrics.json"])["accuracy"]
    _validate_card(model, json.loads(before["metrics.json"]))
    assert before.keys() >= {"confusion.png", "metrics.png", "loss.png", "history.jsonl", "document.json"}
    data = json.loads(before["data.json"])
    assert (data["run"]["steps"], data["run"]["isEstimate"], data["shown"]) == (4, False, []), "no rows of the data"
    assert b"Data of this model: SequenceClassification" in before["data.html"]
    assert "histogram" not in (model / "README.md").read_text()
    # As if the run had ended between its last checkpoint and the export.
    shutil.rmtree(model)
    [result] = ranks.run(launch.run_rank, 1, tmp_path / "train.json")
    assert not [event for event in result.events if event.event == "evaluated"]
    assert {file.name: file.read_bytes() for file in (model / "training").iterdir()} == before


def _validate_card(model: Path, measured: dict[str, float]) -> None:
    card = ModelCard.load(model / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-classification")
    assert {"accuracy", "f1", "matthews"} <= set(card.data.metrics)
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert results == pytest.approx(measured, abs=1e-6)
    for text in ("![confusion](training/confusion.png)", "![loss](training/loss.png)", "vocabSize: 600", "Nothing learned"):
        assert text in card.text
    assert "our-secret" not in card.content
    code = card.text.partition("```python\n")[2].partition("```")[0].replace("PATH/TO/THIS/FOLDER", str(model))
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    assert namespace["model"]("import asyncio")[0]["label"] in corpora.PACKAGES


def test_the_card_of_an_adapter_names_its_base_model(tmp_path: Path) -> None:
    source = {"source": "hf://organisation/texts/train/*.jsonl"}
    spec = tiny.spec(
        model={"initialization": "Pretrained", "source": "hf://organisation/llama", "tokenizer": None},
        method={"type": "LoRA"}, data={"train": [source], "evaluationFraction": 0.1},
    )  # fmt: skip
    (tmp_path / "adapter_config.json").write_text("{}")
    report = {"steps": 9, "exportedStep": 6, "fit": {"sentence": "settled"}}
    documents = {"data": {"rows": 3}, "metrics": {"loss": 1.0, "perplexity": float("inf")}, "report": report}
    write_card(tmp_path, spec, objectives.from_spec(spec, tiny.tokenizer()), documents, tmp_path / "training")
    card = ModelCard.load(tmp_path / "README.md")
    metadata = card.data.to_dict()
    assert (metadata["base_model"], metadata["base_model_relation"], metadata["library_name"]) == (
        "organisation/llama",
        "adapter",
        "peft",
    )
    assert metadata["datasets"] == ["organisation/texts"]
    [result] = card.data.eval_results
    assert (result.dataset_type, result.metric_type, result.metric_value) == ("organisation/texts", "loss", 1.0)
    assert 'AutoModelForCausalLM.from_pretrained("organisation/llama")' in card.text
    assert "This is the best model, from step 6." in card.text
