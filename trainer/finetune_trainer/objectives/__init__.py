"""Objectives by the name they have in the document: one file each, called like that of its options in `config/objectives`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.objectives import module_of
from finetune_trainer.objectives.base import Batch, BatchStatistics, Objective

__all__ = ["Batch", "BatchStatistics", "Objective", "named", "of"]


def named(name: str) -> type[Objective]:
    """The class of the objective with this name."""
    found: type[Objective] = getattr(import_module(f"{__name__}.{module_of(name)}"), name)
    return found


def of(spec: TrainSpec, processor: Any) -> Objective:
    """The objective that the document asks for; raises ConfigurationError for a tokenizer that does not fit it."""
    return named(spec.objective.type)(spec, processor)
