"""Sequence classification: losses of transformers, metrics of scikit-learn, invalid labels, and training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight
from tests.support import corpora, tiny
from tests.support.learning import learn
from tests.support.slow import slow
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedModel, pipeline

from finetune_trainer.data.loading.collate import Batch, Layout
from finetune_trainer.data.loading.dataset import Sample
from finetune_trainer.data.preprocessing.examples import EncodeStatus
from finetune_trainer.data.records.row import Row
from finetune_trainer.models import tokenizer_training
from finetune_trainer.objectives.metrics import classification
from finetune_trainer.objectives.sequence_classification import SequenceClassification
from finetune_trainer.protocol.outcome import ConfigurationError, DataError

ROWS = {"SingleLabel": corpora.by_package(10), "MultiLabel": corpora.by_habit(10), "Regression": corpora.by_indentation(10)}
TOKENIZER = tokenizer_training.train_tokenizer([row["text"] for row in ROWS["SingleLabel"]], 500, adds_special_tokens=True)


def records(rows: list[dict[str, Any]]) -> list[Row]:
    return [Row(row, f"rows.jsonl:{number}", {key: key for key in row}) for number, row in enumerate(rows, start=1)]


def objective(
    problem: str,
    rows: list[dict[str, Any]] | None = None,
    options: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    **changes: Any,
) -> SequenceClassification:
    spec = tiny.spec(
        objective={"type": "SequenceClassification", "sequenceClassification": {"problem": problem, **(options or {})}},
        data={"maxLength": 48, **changes}, training=training or {},
    )  # fmt: skip
    made = SequenceClassification.from_spec(spec, TOKENIZER)
    made.encoder.set_statistics(made.encoder.collect_statistics(lambda: records(rows or ROWS[problem])))
    return made


def examples(classifier: SequenceClassification, rows: list[dict[str, Any]]) -> list[Sample]:
    encoded = classifier.encoder.encode(records(rows))
    return [{name: np.asarray(value) for name, value in example.items()} for one in encoded for example in one.examples]


def batch_of(classifier: SequenceClassification, rows: list[dict[str, Any]]) -> Batch:
    found = examples(classifier, rows)
    found = [{**row, "target": row["target"].astype(np.float32)} for row in found]
    return classifier.collator.collate(found, [], Layout())


def model(classifier: SequenceClassification) -> PreTrainedModel:
    torch.manual_seed(0)
    settings = BertConfig.from_dict(
        {
            "vocab_size": 500, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "max_position_embeddings": 64, "initializer_range": 0.5,
        }
        | classifier.model_setup.config_overrides()
    )  # fmt: skip
    made: PreTrainedModel = AutoModelForSequenceClassification.from_config(settings).eval()
    return made


def measured(classifier: SequenceClassification, learner: PreTrainedModel, batch: Batch) -> dict[str, float]:
    with torch.no_grad():
        return classifier.metrics.compute([1.0], classifier.metrics.measure(learner, batch).statistics.numpy())


@pytest.mark.parametrize("problem", ROWS)
def test_computes_the_loss_of_transformers(problem: str) -> None:
    classifier = objective(problem)
    learner, batch = model(classifier), batch_of(classifier, ROWS[problem])
    labels = batch.targets["labels"]
    theirs = batch.inputs | {"labels": labels[:, 0].long() if problem == "SingleLabel" else labels}
    if problem == "Regression":
        theirs["labels"] = labels[:, 0]
    mean = classifier.loss.loss_sum(learner, batch)[0] / classifier.collator.count_terms(batch)[0]
    assert mean.item() == pytest.approx(learner(**theirs).loss.item(), rel=1e-5)


def test_applies_label_smoothing_like_torch() -> None:
    classifier = objective("SingleLabel")
    learner, batch = model(classifier), batch_of(classifier, ROWS["SingleLabel"])
    plain = classifier.loss.loss_sum(learner, batch)
    classifier = objective("SingleLabel", training={"labelSmoothing": 0.2})
    logits = learner(**batch.inputs).logits
    target = batch.targets["labels"][:, 0].long()
    expected = torch.nn.functional.cross_entropy(logits, target, reduction="sum", label_smoothing=0.2)
    assert classifier.loss.loss_sum(learner, batch).item() == pytest.approx(expected.item(), rel=1e-5)
    assert classifier.metrics.measure(learner, batch).losses.tolist() == plain.tolist() != expected.tolist()


def test_computes_single_label_metrics_of_scikit_learn() -> None:
    classifier = objective("SingleLabel")
    learner, batch = model(classifier), batch_of(classifier, ROWS["SingleLabel"])
    found = measured(classifier, learner, batch)
    with torch.no_grad():
        guess = learner(**batch.inputs).logits.argmax(1).numpy()
    true = batch.targets["labels"][:, 0].long().numpy()
    assert 0.1 < found["accuracy"] < 0.9
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(true, guess))
    assert found["matthews"] == pytest.approx(metrics.matthews_corrcoef(true, guess))
    assert found["microF1"] == pytest.approx(metrics.f1_score(true, guess, average="micro"))
    for name, score in (("precision", metrics.precision_score), ("recall", metrics.recall_score), ("f1", metrics.f1_score)):
        assert found[name] == pytest.approx(score(true, guess, average="macro", zero_division=0)), name
    of_each = metrics.f1_score(true, guess, average=None, labels=range(4), zero_division=0)
    assert [found[f"f1[{package}]"] for package in corpora.PACKAGES] == pytest.approx(of_each.tolist())
    with torch.no_grad():
        table = classifier.metrics.tables(classifier.metrics.measure(learner, batch).statistics.numpy())["confusion"]
    assert table == {"labels": list(corpora.PACKAGES), "counts": metrics.confusion_matrix(true, guess).tolist()}


def test_counts_labels_with_and_without_a_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    predicted, actual = torch.tensor([0, 1, 1, 2, 2, 2]), torch.tensor([0, 1, 0, 2, 0, 1])
    within = classification.label_counts_from_pairs(classification.count_pairs(predicted, actual, 3).numpy(), 3)
    monkeypatch.setattr(classification, "MAX_MATRIX_LABELS", 2)
    beyond = classification.count_pairs(predicted, actual, 3).numpy()
    assert classification.label_counts_from_pairs(beyond, 3).tolist() == within.tolist() == [1, 1, 1, 1, 2, 3, 3, 2, 1]
    assert classification.confusion_table(beyond, ["a", "b", "c"]) == {}


def test_computes_multi_label_metrics_of_scikit_learn() -> None:
    classifier = objective("MultiLabel")
    learner, batch = model(classifier), batch_of(classifier, ROWS["MultiLabel"])
    found = measured(classifier, learner, batch)
    with torch.no_grad():
        guess = (learner(**batch.inputs).logits > 0).numpy()
    true = batch.targets["labels"].numpy() > 0
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(true, guess))
    assert found["microF1"] == pytest.approx(metrics.f1_score(true, guess, average="micro"))
    assert found["f1"] == pytest.approx(metrics.f1_score(true, guess, average="macro", zero_division=0))


def test_computes_regression_metrics_of_scikit_learn() -> None:
    classifier = objective("Regression")
    learner, batch = model(classifier), batch_of(classifier, ROWS["Regression"])
    found = measured(classifier, learner, batch)
    with torch.no_grad():
        guess = learner(**batch.inputs).logits[:, 0].numpy()
    true = batch.targets["labels"][:, 0].numpy()
    assert found["mse"] == pytest.approx(metrics.mean_squared_error(true, guess), rel=1e-5)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(true, guess), rel=1e-5)
    assert found["r2"] == pytest.approx(metrics.r2_score(true, guess), rel=1e-4)
    assert found["pearson"] == pytest.approx(np.corrcoef(true, guess)[0, 1], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({"classWeights": {"email": 3.0, "xml": 0.25}}, [1.0, 3.0, 1.0, 0.25]),
        ({"classWeighting": "Balanced"}, [26 / (4 * 10), 26 / (4 * 8), 26 / (4 * 5), 26 / (4 * 3)]),
        ({"classWeighting": "Balanced", "labels": ["xml", "asyncio", "email", "unittest"]}, None),
    ],
)
def test_weights_classes_like_torch(options: dict[str, Any], weights: list[float] | None) -> None:
    rows = [row for package, most in zip(corpora.PACKAGES, (10, 8, 5, 3), strict=True) for row in of_package(package)[:most]]
    classifier = objective("SingleLabel", rows, options)
    if weights is None:
        weights = compute_class_weight(
            "balanced", classes=np.array(options["labels"]), y=[row["label"] for row in rows]
        ).tolist()
    learner, batch = model(classifier), batch_of(classifier, rows)
    with torch.no_grad():
        logits = learner(**batch.inputs).logits
    expected = torch.nn.functional.cross_entropy(logits, batch.targets["labels"][:, 0].long(), torch.tensor(weights))
    assert classifier.loss.loss_sum(learner, batch)[0].item() / classifier.collator.count_terms(batch)[0] == pytest.approx(
        expected.item(), rel=1e-5
    )
    few = batch_of(classifier, rows[-1:])
    assert classifier.collator.count_terms(few)[0] == pytest.approx(
        weights[classifier.encoder.statistics["labels"].index("xml")]
    )
    assert classifier.collator.count_terms(classifier.collator.collate([], [], Layout())) == [0]


def of_package(package: str) -> list[dict[str, Any]]:
    return [row for row in ROWS["SingleLabel"] if row["label"] == package]


def test_rejects_weights_of_unknown_labels() -> None:
    with pytest.raises(
        ConfigurationError, match=r"classWeights: 'emial' is none of the labels \(asyncio, email, unittest, xml\)"
    ):
        objective("SingleLabel", options={"classWeights": {"emial": 2.0}})


@pytest.mark.parametrize("problem", ROWS)
def test_rank_without_rows_has_zero_loss(problem: str) -> None:
    classifier = objective(problem)
    batch = classifier.collator.collate([], [], Layout())
    assert classifier.collator.count_terms(batch) == [0]
    total = classifier.loss.loss_sum(model(classifier), batch)
    total.sum().backward()
    assert total.item() == 0


def test_collects_labels_from_the_data() -> None:
    numbers = [{"text": "a", "label": label} for label in (10, 9, 2, 9)]
    assert objective("SingleLabel", numbers).encoder.statistics == {"labels": ["2", "9", "10"]}
    assert objective("SingleLabel").encoder.statistics == {"labels": list(corpora.PACKAGES)}
    assert objective("MultiLabel").encoder.statistics == {"labels": ["loops", "raises", "returns"]}
    assert objective("SingleLabel", [{"text": "", "label": flag} for flag in (True, False)]).encoder.statistics == {
        "labels": ["false", "true"]
    }


def test_encodes_long_and_empty_texts() -> None:
    rows = [{"text": "x y " * 100, "label": "a"}, {"text": " ", "label": "b"}, {"text": "short", "label": "b"}]
    for overlong, statuses in (
        ("Truncate", [EncodeStatus.TRUNCATED, EncodeStatus.EMPTY, EncodeStatus.KEPT]),
        ("Drop", [EncodeStatus.DROPPED, EncodeStatus.EMPTY, EncodeStatus.KEPT]),
    ):
        classifier = objective("SingleLabel", rows, overlong=overlong)
        encoded = list(classifier.encoder.encode(records(rows)))
        assert [one.status for one in encoded] == statuses
        assert all(len(example["input_ids"]) <= 48 for one in encoded for example in one.examples)


def test_pairs_have_segments() -> None:
    rows = [{"text": "one", "text_pair": "two", "label": "a"}, {"text": "x " * 99, "text_pair": "short", "label": "b"}]
    classifier = objective("SingleLabel", rows)
    first, second = examples(classifier, rows)
    end = TOKENIZER.eos_token_id
    assert first["input_ids"][0] == first["input_ids"][-1] == end
    assert sorted(set(first["token_type_ids"].tolist())) == [0, 1]
    assert len(second["input_ids"]) == 48
    assert TOKENIZER.decode(second["input_ids"], skip_special_tokens=True).endswith("short"), "the longer one is cut"


@pytest.mark.parametrize(
    ("problem", "label", "message"),
    [
        ("SingleLabel", ["a"], "rows.jsonl:2: column label is ['a'], and SingleLabel needs one"),
        ("SingleLabel", 1.5, "rows.jsonl:2: column label is 1.5, and SingleLabel needs one"),
        ("MultiLabel", "a", "rows.jsonl:2: column label is 'a', and MultiLabel needs a list of labels"),
        ("Regression", "much", "rows.jsonl:2: column label is 'much', and Regression needs a finite number"),
        ("Regression", "inf", "rows.jsonl:2: column label is 'inf', and Regression needs a finite number"),
    ],
)
def test_rejects_labels_of_another_problem(problem: str, label: Any, message: str) -> None:
    rows = [ROWS[problem][0], {"text": "x", "label": label}]
    with pytest.raises(DataError) as raised:
        list(objective(problem, rows).encoder.encode(records(rows)))
    assert str(raised.value).startswith(message)


def test_rejects_unknown_label() -> None:
    with pytest.raises(DataError, match=r"^rows.jsonl:1: column label is 'new', which is none of the labels \(asyncio, email"):
        list(objective("SingleLabel").encoder.encode(records([{"text": "x", "label": "new"}])))


def test_rejects_a_single_label() -> None:
    with pytest.raises(DataError, match=r"^spec.data.train: every row has the same label 'a'"):
        objective("SingleLabel", [{"text": "x", "label": "a"}])


@pytest.mark.parametrize(
    ("problem", "rows", "steps", "metric", "at_most_before", "at_least_after"),
    [
        ("SingleLabel", corpora.by_package(), 100, "accuracy", 0.4, 0.6),
        slow("MultiLabel", corpora.by_habit(), 200, "microF1", 0.4, 0.65),
        ("Regression", corpora.by_indentation(), 40, "r2", 0.1, 0.1),
        slow("Regression", corpora.by_indentation(), 130, "r2", 0.1, 0.3),
    ],
)
def test_training_improves_the_metrics(
    problem: str,
    rows: list[dict[str, Any]],
    steps: int,
    metric: str,
    at_most_before: float,
    at_least_after: float,
    tmp_path: Path,
) -> None:
    trained = learn(
        tmp_path, rows, objective={"type": "SequenceClassification", "sequenceClassification": {"problem": problem}},
        training={"maxSteps": steps, "schedule": {"warmupSteps": 20}},
    )  # fmt: skip
    assert trained.before[metric] < at_most_before
    assert trained.after[metric] > at_least_after
    answer = pipeline("text-classification", str(trained.model))(rows[0]["text"])[0]
    assert answer["label"] in (*corpora.PACKAGES, "returns", "raises", "loops", "LABEL_0")
