"""Objectives by the name they have in the document. One file each; a new one is a class and a line in `OBJECTIVES`."""

from __future__ import annotations

from finetune_trainer.config import TrainSpec
from finetune_trainer.objectives.base import Batch, Objective
from finetune_trainer.objectives.causal_lm import CausalLM

OBJECTIVES: dict[str, type[Objective]] = {"CausalLM": CausalLM}


def of(spec: TrainSpec) -> Objective:
    """The objective that the document asks for."""
    return OBJECTIVES[spec.objective.type]()


__all__ = ["OBJECTIVES", "Batch", "Objective", "of"]
