"""The document's part that says what is trained. Imports no torch: the operator's API embeds these models as they are."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.across import RULES
from finetune_trainer.config.augmentation import Augmentation, BackTranslation, Synonyms, Translator
from finetune_trainer.config.base import Rule, Section, explain
from finetune_trainer.config.checks import Checks
from finetune_trainer.config.data import Columns, Data, Dataset, Folds
from finetune_trainer.config.forgetting import ElasticWeights, Forgetting, Rehearsal
from finetune_trainer.config.image_augmentation import ImageAugmentation
from finetune_trainer.config.languages import Languages
from finetune_trainer.config.methods import IA3, Bottleneck, Freeze, LoRA, Method, PromptTuning, Unfreeze
from finetune_trainer.config.model import Model, Tokenizer, TokenizerTraining
from finetune_trainer.config.objectives import Choice, Objective, Task
from finetune_trainer.config.objectives.base import Options
from finetune_trainer.config.objectives.images import ImageOptions
from finetune_trainer.config.output import Checkpoint, Export
from finetune_trainer.config.training import (
    DeepSpeed,
    EarlyStopping,
    Evaluation,
    FewShot,
    Generation,
    Optimizer,
    Schedule,
    Training,
)

__all__ = [
    "IA3", "Augmentation", "BackTranslation", "Bottleneck", "Checkpoint", "Checks", "Choice", "Columns", "Data", "Dataset",
    "DeepSpeed", "EarlyStopping", "ElasticWeights", "Evaluation", "Export", "FewShot", "Folds", "Forgetting", "Freeze",
    "Generation", "ImageAugmentation", "ImageOptions", "Languages", "LoRA", "Method", "Model", "Objective", "Optimizer",
    "Options", "PromptTuning", "Rehearsal", "Rule", "Schedule", "Section", "Synonyms", "Task", "Tokenizer",
    "TokenizerTraining", "TrainSpec", "Training", "Translator", "Unfreeze", "explain",
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

    rules: ClassVar[tuple[Rule, ...]] = RULES

    @property
    def packing(self) -> bool:
        """Whether several rows of data share one sequence: the document's word, or what suits objective and method."""
        suits = self.objective.options.packable and self.method.options.packable
        return suits if self.data.packing is None else self.data.packing

    @property
    def overlong(self) -> Literal["Split", "Truncate", "Drop"]:
        """What becomes of rows longer than a sequence: the document's word, or what suits the objective."""
        return self.data.overlong or ("Split" if self.objective.options.divisible else "Truncate")
