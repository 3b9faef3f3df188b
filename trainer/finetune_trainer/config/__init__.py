"""The TrainSpec: the part of the document that describes the training run. Imports no torch, because the operator's API embeds
these models."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.augmentation import AugmentationConfig, BackTranslationConfig, SynonymsConfig, TranslatorConfig
from finetune_trainer.config.base import Rule, Section, explain
from finetune_trainer.config.checkpoint import CheckpointConfig
from finetune_trainer.config.continual_learning import ContinualLearningConfig, EWCConfig, ReplayConfig
from finetune_trainer.config.cross_section_rules import RULES
from finetune_trainer.config.data import ColumnsConfig, DataConfig, DatasetConfig, FoldsConfig
from finetune_trainer.config.data_checks import DataChecksConfig
from finetune_trainer.config.export import ExportConfig
from finetune_trainer.config.image_augmentation import ImageAugmentationConfig
from finetune_trainer.config.languages import LanguagesConfig
from finetune_trainer.config.methods import FreezeConfig, MethodSpec, UnfreezeConfig
from finetune_trainer.config.model import ModelConfig, TokenizerConfig, TokenizerTrainingConfig
from finetune_trainer.config.objectives import ObjectiveChoice, ObjectiveSpec, TaskSpec
from finetune_trainer.config.objectives.base import ObjectiveConfig
from finetune_trainer.config.objectives.images import ImageObjectiveConfig
from finetune_trainer.config.training import (
    DeepSpeedConfig,
    EarlyStoppingConfig,
    EvaluationConfig,
    FewShotConfig,
    GenerationConfig,
    LossAnomalyConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
)

__all__ = [
    "AugmentationConfig",
    "BackTranslationConfig",
    "CheckpointConfig",
    "ColumnsConfig",
    "ContinualLearningConfig",
    "DataChecksConfig",
    "DataConfig",
    "DatasetConfig",
    "DeepSpeedConfig",
    "EWCConfig",
    "EarlyStoppingConfig",
    "EvaluationConfig",
    "ExportConfig",
    "FewShotConfig",
    "FoldsConfig",
    "FreezeConfig",
    "GenerationConfig",
    "ImageAugmentationConfig",
    "ImageObjectiveConfig",
    "LanguagesConfig",
    "LossAnomalyConfig",
    "MethodSpec",
    "ModelConfig",
    "ObjectiveChoice",
    "ObjectiveConfig",
    "ObjectiveSpec",
    "OptimizerConfig",
    "ReplayConfig",
    "Rule",
    "ScheduleConfig",
    "Section",
    "SynonymsConfig",
    "TaskSpec",
    "TokenizerConfig",
    "TokenizerTrainingConfig",
    "TrainSpec",
    "TrainingConfig",
    "TranslatorConfig",
    "UnfreezeConfig",
    "explain",
]  # fmt: skip


class TrainSpec(Section):
    """The fields that determine the result of a run; the number of nodes and processes is not one of them."""

    model: ModelConfig
    data: DataConfig
    objective: ObjectiveSpec = ObjectiveSpec()
    method: MethodSpec = MethodSpec()
    training: TrainingConfig = TrainingConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig
    export: ExportConfig = Field(default_factory=ExportConfig)

    rules: ClassVar[tuple[Rule, ...]] = RULES

    @property
    def packing(self) -> bool:
        """Whether several rows of data are packed into one sequence; by default if objective and method support it."""
        if self.data.packing is not None:
            return self.data.packing
        return self.objective.config.packable and self.method.config.supports_packing

    @property
    def overlong(self) -> Literal["Split", "Truncate", "Drop"]:
        """The treatment of rows longer than a sequence; by default they are split if the objective supports it."""
        return self.data.overlong or ("Split" if self.objective.config.splittable else "Truncate")
