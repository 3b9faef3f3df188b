"""Cases of evaluation.metric, for each objective with metrics that it reports and metrics of other objectives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.rule_cases.documents import IMAGES, PRETRAINED, TASK, TWO_TASKS, Case, contrastive, spec

REPORTED: tuple[tuple[str, Mapping[str, Any], str, str], ...] = (
    ("CausalLM", {}, "perplexity", "accuracy"),
    ("Denoising", {}, "tokenAccuracy", "accuracy"),
    ("InstructionTuning", {}, "accuracy", "f1"),
    ("MaskedLM", {}, "accuracy", "perplexity"),
    ("NextSentence", {}, "nextSentence.accuracy", "accuracy"),
    ("PreferenceTuning", {}, "margin", "perplexity"),
    ("QuestionAnswering", {}, "f1[answerable]", "f1[other]"),
    ("Seq2Seq", {}, "rougeL", "accuracy"),
    ("Seq2Seq", {"metrics": ["ROUGE"]}, "rouge1", "bleu"),
    ("SequenceClassification", {}, "f1[spam]", "mse"),
    ("SequenceClassification", {"problem": "Regression"}, "pearson", "f1"),
    ("SequenceClassification", {"problem": "MultiLabel"}, "microF1", "matthews"),
    ("SequenceClassification", {}, "f1", "eval_f1"),
    ("TokenClassification", {}, "f1[PER]", "mse"),
)
"""An objective, its options, a metric that it reports and one that it does not."""


def _cases() -> Iterator[Case]:
    for name, options, reported, unknown in REPORTED:
        field = name[0].lower() + name[1:]
        objective = {"type": name, **({field: options} if options else {})}
        yield Case(
            "spec.evaluation.metric",
            f"{name} reports no such metric: set evaluation.metric to one of loss",
            spec(objective=objective, evaluation__metric=reported),
            spec(objective=objective, evaluation__metric=unknown, evaluation__goal=_goal(unknown)),
        )
    images: dict[str, Any] = IMAGES | spec(objective={"type": "ImageClassification"})
    yield Case(
        "spec.evaluation.metric",
        "ImageClassification reports no such metric",
        images | spec(evaluation__metric="matthews"),
        images | spec(evaluation__metric="r2"),
    )
    pairs = contrastive()
    yield Case(
        "spec.evaluation.metric",
        "TextContrastive reports no such metric",
        pairs | spec(evaluation__metric="mrr"),
        pairs | spec(evaluation__metric="accuracy"),
    )
    views: dict[str, Any] = IMAGES | spec(objective={"type": "ImageContrastive"}, training__batchSize=8)
    yield Case(
        "spec.evaluation.metric",
        "ImageContrastive reports no such metric",
        views | spec(evaluation__metric="recall@5"),
        views | spec(evaluation__metric="f1"),
    )
    regression = TASK | {"sequenceClassification": {"problem": "Regression"}}
    for task, reported, unknown in (
        (TASK, "a.f1[on]", "a.mse"),
        (regression, "a.mse", "a.f1"),
        (TASK, "b.accuracy", "accuracy"),
    ):
        tasks = [task, {"name": "b", "type": "MaskedLM"}]
        changes = spec(**PRETRAINED, **TWO_TASKS | {"objective": {"type": "MultiTask", "tasks": tasks}})
        yield Case(
            "spec.evaluation.metric",
            "no task reports such a metric",
            changes | spec(evaluation__metric=reported),
            changes | spec(evaluation__metric=unknown),
        )


def _goal(metric: str) -> str:
    return "Minimize" if metric in ("mse", "perplexity") else "Maximize"


CASES: tuple[Case, ...] = tuple(_cases())
