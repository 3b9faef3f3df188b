"""Applies a document's method to a model, as a run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune_trainer import methods
from finetune_trainer.config import TrainSpec
from finetune_trainer.methods import MethodContext
from finetune_trainer.objectives import Objective


def apply_method(model: Any, spec: TrainSpec, objective: Objective) -> Any:
    """The model to train; earlier adapters are read from the folders that their file:// sources name."""
    context = MethodContext(
        objective, spec.training.seed, fetch_adapter=lambda adapter, _: Path(adapter.source.removeprefix("file://"))
    )
    return methods.apply_method(model, spec.method, context)
