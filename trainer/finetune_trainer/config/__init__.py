"""The document's part that says what is trained. Imports no torch: the operator's API embeds these models as they are."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import Rule, Section, explain
from finetune_trainer.config.data import Columns, Data, Dataset
from finetune_trainer.config.forgetting import ElasticWeights, Forgetting
from finetune_trainer.config.method import LoRA, Method
from finetune_trainer.config.model import Model, Tokenizer, TokenizerTraining
from finetune_trainer.config.objectives import OPTIONS, Choice, Objective, Task
from finetune_trainer.config.objectives.base import Options
from finetune_trainer.config.output import Checkpoint, Export
from finetune_trainer.config.training import DeepSpeed, Evaluation, Generation, Optimizer, Schedule, Training

__all__ = [
    "Checkpoint",
    "Choice",
    "Columns",
    "Data",
    "Dataset",
    "DeepSpeed",
    "ElasticWeights",
    "Evaluation",
    "Export",
    "Forgetting",
    "Generation",
    "LoRA",
    "Method",
    "Model",
    "Objective",
    "Optimizer",
    "Options",
    "Rule",
    "Schedule",
    "Section",
    "Task",
    "Tokenizer",
    "TokenizerTraining",
    "TrainSpec",
    "Training",
    "explain",
]


CONTINUING = [name for name, options in OPTIONS.items() if options.continues]
DIVISIBLE = [name for name, options in OPTIONS.items() if options.divisible]
PACKABLE = [name for name, options in OPTIONS.items() if options.packable]


class TrainSpec(Section):
    """All that decides what comes out of a run; on how many nodes it runs is not part of it."""

    model: Model
    data: Data
    objective: Objective = Objective()
    method: Method = Method()
    training: Training = Training()
    deepspeed: DeepSpeed = DeepSpeed()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint
    export: Export = Field(default_factory=Export)

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.method.type != 'LoRA' || self.model.initialization == 'Pretrained'",
            "LoRA adapts weights that were learnt before: set model.initialization: Pretrained, or method.type: Full",
            "method.type",
        ),
        Rule(
            "!has(self.evaluation.everySteps) || size(self.data.evaluation) > 0 || has(self.data.evaluationFraction)",
            "there is nothing to evaluate on: add data.evaluation or data.evaluationFraction, or remove evaluation.everySteps",
            "evaluation.everySteps",
        ),
        Rule(
            "!self.evaluation.atStart || size(self.data.evaluation) > 0 || has(self.data.evaluationFraction)",
            "there is nothing to evaluate on: add data.evaluation or data.evaluationFraction, or remove evaluation.atStart",
            "evaluation.atStart",
        ),
        Rule(
            f"!has(self.evaluation.generation) || self.objective.type in {CONTINUING}",
            "a model of this objective does not continue a prompt: remove evaluation.generation",
            "evaluation.generation",
        ),
        Rule(
            "self.method.type != 'LoRA' || !(self.objective.type in ['SequenceClassification', 'MultiTask'])",
            "LoRA would leave the new head for the labels as it was drawn: set method.type: Full",
            "method.type",
        ),
        Rule(
            "(size(self.data.earlier) > 0) == (has(self.training.forgetting) && has(self.training.forgetting.elastic))",
            "data.earlier and training.forgetting.elastic need each other: add the one or remove the other",
            "data.earlier",
        ),
        Rule(
            "!has(self.training.forgetting) || self.method.type == 'Full'",
            "weights that are frozen cannot leave their start: remove training.forgetting, or set method.type: Full",
            "training.forgetting",
        ),
        Rule(
            "!has(self.training.forgetting) || self.deepspeed.zeroStage < 3",
            "ZeRO stage 3 has no rank that sees whole weights: remove training.forgetting, or set deepspeed.zeroStage: 2",
            "training.forgetting",
        ),
        *(
            Rule(
                "size(self.objective.tasks) == 0 ? "
                f"self.data.{side}.all(d, !has(d.task)) : "
                f"self.data.{side}.all(d, has(d.task) && self.objective.tasks.exists(t, t.name == d.task))",
                "each source of data serves one task: set its task to a name in objective.tasks, or to nothing without tasks",
                f"data.{side}",
            )
            for side in ("train", "evaluation", "earlier")
        ),
        Rule(
            "self.objective.tasks.all(t, self.data.train.exists(d, has(d.task) && d.task == t.name))",
            "a task has nothing to learn from: add a source with its name as task, or remove the task",
            "objective.tasks",
        ),
        Rule(
            f"!has(self.data.packing) || !self.data.packing || self.objective.type in {PACKABLE}",
            "this objective learns from one row of data at a time: remove data.packing",
            "data.packing",
        ),
        Rule(
            f"!has(self.data.overlong) || self.data.overlong != 'Split' || self.objective.type in {DIVISIBLE}",
            "this objective cannot learn from parts of a row: set data.overlong to Truncate or Drop",
            "data.overlong",
        ),
    )

    @property
    def packing(self) -> bool:
        """Whether several rows of data share one sequence: the document's word, or what suits the objective."""
        return self.objective.options.packable if self.data.packing is None else self.data.packing

    @property
    def overlong(self) -> Literal["Split", "Truncate", "Drop"]:
        """What becomes of rows longer than a sequence: the document's word, or what suits the objective."""
        return self.data.overlong or ("Split" if self.objective.options.divisible else "Truncate")
