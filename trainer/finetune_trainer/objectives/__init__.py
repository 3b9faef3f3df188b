"""Objectives by the name they have in the document. One file each; a new one is a class and a line in `OBJECTIVES`."""

from __future__ import annotations

from typing import Any

from finetune_trainer.config import TrainSpec
from finetune_trainer.objectives.base import Batch, Measured, Objective
from finetune_trainer.objectives.causal_lm import CausalLM
from finetune_trainer.objectives.instruction_tuning import InstructionTuning
from finetune_trainer.objectives.masked_lm import MaskedLM
from finetune_trainer.objectives.multi_task import MultiTask
from finetune_trainer.objectives.preference_tuning import PreferenceTuning
from finetune_trainer.objectives.sequence_classification import SequenceClassification

OBJECTIVES: dict[str, type[Objective]] = {
    "CausalLM": CausalLM,
    "InstructionTuning": InstructionTuning,
    "MaskedLM": MaskedLM,
    "MultiTask": MultiTask,
    "PreferenceTuning": PreferenceTuning,
    "SequenceClassification": SequenceClassification,
}


def of(spec: TrainSpec, processor: Any) -> Objective:
    """The objective that the document asks for; raises ConfigurationError for a tokenizer that does not fit it."""
    return OBJECTIVES[spec.objective.type](spec, processor)


__all__ = ["OBJECTIVES", "Batch", "Measured", "Objective", "of"]
