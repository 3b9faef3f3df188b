"""Options that the classifications share."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import Rule
from finetune_trainer.config.objectives.base import ObjectiveConfig


class ClassificationObjectiveConfig(ObjectiveConfig):
    """Base of the objectives that give a row one of several labels, any of several labels, or a number."""

    labelled: ClassVar[bool] = True
    smoothable: ClassVar[bool] = True

    problem: Literal["SingleLabel", "MultiLabel", "Regression"] = Field(
        "SingleLabel", description="SingleLabel chooses one label, MultiLabel any number of them, Regression gives a number."
    )
    labels: list[str] = Field(
        default_factory=list, max_length=10_000, description="All labels in their order; found in the training data when empty."
    )

    class_weighting: Literal["None", "Balanced"] = Field(
        "None",
        description="With SingleLabel, Balanced weighs each row's loss by rows / (labels x rows of its label), so that all "
        "labels count alike.",
    )
    class_weights: dict[str, Annotated[float, Field(gt=0, le=1e6)]] = Field(
        default_factory=dict,
        max_length=10_000,
        description="The same with weights of your own, by label; labels that are not named have 1.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.problem != 'Regression' || size(self.labels) == 0",
            "a number has no labels: remove labels, or set another problem",
            "labels",
        ),
        Rule(
            "self.problem == 'SingleLabel' || (self.classWeighting == 'None' && size(self.classWeights) == 0)",
            "only single labels have weights: remove classWeighting and classWeights, or set problem: SingleLabel",
            "classWeights",
        ),
        Rule(
            "self.classWeighting == 'None' || size(self.classWeights) == 0",
            "classes are weighed twice: keep either classWeighting or classWeights",
            "classWeights",
        ),
    )
