"""Objectives by the name they have in the document. One file each; a new one is a class and a line in `OBJECTIVES`."""

from __future__ import annotations

from typing import Any

from finetune_trainer.config import TrainSpec
from finetune_trainer.objectives.base import Batch, Measured, Objective
from finetune_trainer.objectives.causal_lm import CausalLM
from finetune_trainer.objectives.denoising import Denoising
from finetune_trainer.objectives.image_classification import ImageClassification
from finetune_trainer.objectives.image_contrastive import ImageContrastive
from finetune_trainer.objectives.instruction_tuning import InstructionTuning
from finetune_trainer.objectives.masked_lm import MaskedLM
from finetune_trainer.objectives.multi_task import MultiTask
from finetune_trainer.objectives.next_sentence import NextSentence
from finetune_trainer.objectives.preference_tuning import PreferenceTuning
from finetune_trainer.objectives.question_answering import QuestionAnswering
from finetune_trainer.objectives.seq2seq import Seq2Seq
from finetune_trainer.objectives.sequence_classification import SequenceClassification
from finetune_trainer.objectives.text_contrastive import TextContrastive
from finetune_trainer.objectives.token_classification import TokenClassification

OBJECTIVES: dict[str, type[Objective]] = {
    "CausalLM": CausalLM,
    "Denoising": Denoising,
    "ImageClassification": ImageClassification,
    "ImageContrastive": ImageContrastive,
    "InstructionTuning": InstructionTuning,
    "MaskedLM": MaskedLM,
    "MultiTask": MultiTask,
    "NextSentence": NextSentence,
    "PreferenceTuning": PreferenceTuning,
    "QuestionAnswering": QuestionAnswering,
    "Seq2Seq": Seq2Seq,
    "SequenceClassification": SequenceClassification,
    "TextContrastive": TextContrastive,
    "TokenClassification": TokenClassification,
}


def of(spec: TrainSpec, processor: Any) -> Objective:
    """The objective that the document asks for; raises ConfigurationError for a tokenizer that does not fit it."""
    return OBJECTIVES[spec.objective.type](spec, processor)


__all__ = ["OBJECTIVES", "Batch", "Measured", "Objective", "of"]
