"""The document's part that says what is trained. Imports no torch: the operator's API embeds these models as they are."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.base import Rule, Section, explain
from finetune_trainer.config.data import Data, Dataset
from finetune_trainer.config.method import LoRA, Method, Objective
from finetune_trainer.config.model import Model, Tokenizer, TokenizerTraining
from finetune_trainer.config.output import Checkpoint, Export
from finetune_trainer.config.training import DeepSpeed, Evaluation, Generation, Optimizer, Schedule, Training

__all__ = [
    "Checkpoint", "Data", "Dataset", "DeepSpeed", "Evaluation", "Export", "Generation", "LoRA", "Method", "Model",
    "Objective", "Optimizer", "Rule", "Schedule", "Section", "Tokenizer", "TokenizerTraining", "TrainSpec", "Training",
    "explain",
]  # fmt: skip


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
    )
