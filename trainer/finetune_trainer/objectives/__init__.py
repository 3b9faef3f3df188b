"""Training objectives: one file each, with the name of its config in `config/objectives`.

An objective is an assembly of parts (`base`): an encoder, a collator, a model setup, a loss and metrics. Parts that several
objectives share are in `inputs`, `losses` and `metrics`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.objectives import module_of
from finetune_trainer.objectives.base import BatchStatistics, Objective, ObjectiveContext

__all__ = ["BatchStatistics", "Objective", "ObjectiveContext", "from_spec", "objective_class"]


def objective_class(name: str) -> type[Objective]:
    """The class of the objective with this name: `MaskedLM` of the module `masked_lm`."""
    objective: type[Objective] = getattr(import_module(f"{__name__}.{module_of(name)}"), name)
    return objective


def from_spec(spec: TrainSpec, processor: Any) -> Objective:
    """Build the document's objective.

    `processor` is the model's tokenizer or image processor. Raises ConfigurationError for one that the objective cannot use.
    """
    return objective_class(spec.objective.type).from_spec(spec, processor)
