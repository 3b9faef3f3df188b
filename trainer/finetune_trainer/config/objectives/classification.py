"""Config that the classifications share."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import Rule
from finetune_trainer.config.objectives.base import ObjectiveConfig, ReportedMetrics


class ClassificationObjectiveConfig(ObjectiveConfig):
    """Base of the configs of objectives that predict one of several labels, any of several labels, or a number."""

    has_labels: ClassVar[bool] = True
    supports_label_smoothing: ClassVar[bool] = True
    reported_metrics: ClassVar[tuple[ReportedMetrics, ...]] = (
        ReportedMetrics(("loss",)),
        ReportedMetrics(
            ("accuracy", "precision", "recall", "f1", "microPrecision", "microRecall", "microF1", "f1[LABEL]"),
            "problem: SingleLabel or MultiLabel",
            "{section}.problem != 'Regression'",
        ),
        ReportedMetrics(("matthews",), "problem: SingleLabel", "{section}.problem == 'SingleLabel'"),
        ReportedMetrics(
            ("mse", "mae", "r2", "pearson"), "problem: Regression", "{section}.problem == 'Regression'", by_default=False
        ),
    )

    problem: Literal["SingleLabel", "MultiLabel", "Regression"] = Field(
        "SingleLabel", description="SingleLabel predicts one label, MultiLabel any number of them, Regression a number."
    )
    labels: list[str] = Field(
        default_factory=list, max_length=10_000, description="All labels in their order. By default those of the training data."
    )

    class_weighting: Literal["None", "Balanced"] = Field(
        "None",
        description="With SingleLabel, Balanced weights each row's loss by rows / (labels x rows of its label), so that all "
        "labels have the same total weight.",
    )
    class_weights: dict[str, Annotated[float, Field(gt=0, le=1e6)]] = Field(
        default_factory=dict,
        max_length=10_000,
        description="Weights of rows by their label. Labels without an entry have weight 1.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.problem != 'Regression' || size(self.labels) == 0",
            "a regression has no labels: remove labels, or set another problem",
            "labels",
        ),
        Rule(
            "self.problem == 'SingleLabel' || (self.classWeighting == 'None' && size(self.classWeights) == 0)",
            "only single labels have weights: remove classWeighting and classWeights, or set problem: SingleLabel",
            "classWeights",
        ),
        Rule(
            "self.classWeighting == 'None' || size(self.classWeights) == 0",
            "classWeighting and classWeights exclude each other: remove one",
            "classWeights",
        ),
    )
