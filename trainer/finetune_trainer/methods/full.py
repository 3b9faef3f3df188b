"""All weights move, but for those that the document freezes."""

from __future__ import annotations

import fnmatch
from typing import Any

from finetune_trainer.config import FreezeConfig, TrainSpec
from finetune_trainer.methods import layer_depth
from finetune_trainer.objectives import Objective
from finetune_trainer.protocol.outcome import ConfigurationError


def apply(model: Any, spec: TrainSpec, objective: Objective) -> Any:
    """The model itself. Raises ConfigurationError for something to freeze that it does not have, and when nothing is left."""
    if spec.method.freeze:
        _freeze(model, spec.method.freeze)
    return model


def _freeze(model: Any, wanted: FreezeConfig) -> None:
    for pattern in wanted.modules:
        _named(model, pattern)
    if wanted.embeddings or wanted.layers:
        depths = layer_depth.measure(model, "spec.method.freeze")
        if (wanted.layers or 0) > depths.layers:
            raise ConfigurationError(
                f"spec.method.freeze.layers: the model has {depths.layers} layers, not {wanted.layers}: lower it"
            )
        lowest = 0 if wanted.embeddings else 1
        for parameter, deep in depths.of.items():
            if lowest <= deep <= (wanted.layers or 0):
                parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigurationError("spec.method.freeze: no weight is left to train: freeze less")


def _named(model: Any, pattern: str) -> None:
    """Freezes all modules of that name."""
    names = {name: module for name, module in model.named_modules() if name}
    found = [module for name, module in names.items() if fnmatch.fnmatch(f".{name}", f"*.{pattern}")]
    if not found:
        offered = sorted({name.split(".")[-1] for name in names if not name.split(".")[-1].isdecimal()})
        raise ConfigurationError(
            f"spec.method.freeze.modules: the model has no module {pattern!r}; its modules are called {', '.join(offered)}"
        )
    for module in found:
        module.requires_grad_(False)
