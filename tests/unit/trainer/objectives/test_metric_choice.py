"""evaluation.metric against the labels of the data."""

from __future__ import annotations

import pytest
from tests.support import tiny

from finetune_trainer import objectives
from finetune_trainer.objectives import Objective
from finetune_trainer.objectives.metric_choice import validate_label_metric
from finetune_trainer.protocol.outcome import ConfigurationError


def classifier(labels: list[str]) -> Objective:
    objective = objectives.from_spec(tiny.spec(objective={"type": "SequenceClassification"}), tiny.tokenizer())
    objective.encoder.set_statistics({"labels": labels})
    return objective


def tagger(labels: list[str]) -> Objective:
    objective = objectives.from_spec(tiny.spec(objective={"type": "TokenClassification"}), tiny.tokenizer())
    objective.encoder.set_statistics({"labels": labels})
    return objective


def test_accepts_metrics_of_the_labels() -> None:
    for metric in ("loss", "f1", "f1[spam]", "f1[a.b]"):
        validate_label_metric(metric, classifier(["spam", "a.b"]))
    validate_label_metric("f1[PER]", tagger(["O", "B-PER", "I-PER"]))
    validate_label_metric("perplexity", objectives.from_spec(tiny.spec(), tiny.tokenizer()))


@pytest.mark.parametrize(
    ("objective", "metric", "remedy"),
    [
        (classifier(["spam", "ham"]), "f1[eggs]", r"choose one of f1\[spam\], f1\[ham\], or f1"),
        (tagger(["O", "B-PER", "I-PER"]), "f1[B-PER]", r"choose one of f1\[PER\], or f1"),
        (
            classifier([str(number) for number in range(21)]),
            "f1[3]",
            "there are too many labels for an F1 of each: choose another, or f1",
        ),
    ],
)
def test_refuses_labels_without_a_metric(objective: Objective, metric: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^spec.evaluation.metric: f1\[.*\] is not reported: {remedy}$"):
        validate_label_metric(metric, objective)
