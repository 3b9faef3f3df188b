"""Freezes the weights that `spec.method.freeze` names."""

from __future__ import annotations

import fnmatch
from typing import Any

from finetune_trainer.config import FreezeConfig
from finetune_trainer.methods.components.layer_depth import measure_layer_depths
from finetune_trainer.protocol.outcome import ConfigurationError


def freeze_parameters(model: Any, config: FreezeConfig) -> None:
    """Freeze modules by name, the embeddings and the lowest layers.

    Raises ConfigurationError for a module or a layer that the model does not have, and if no weight is left to train.
    """
    for pattern in config.modules:
        _freeze_modules(model, pattern)
    if config.embeddings or config.layers:
        _freeze_lowest_layers(model, config)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigurationError("spec.method.freeze: no weight is left to train: freeze less")


def _freeze_modules(model: Any, pattern: str) -> None:
    """Freeze all modules whose name, or the last parts of it, match the pattern."""
    modules = {name: module for name, module in model.named_modules() if name}
    matching = [module for name, module in modules.items() if fnmatch.fnmatch(f".{name}", f"*.{pattern}")]
    if not matching:
        last_parts = {name.rpartition(".")[2] for name in modules}
        available = sorted(part for part in last_parts if not part.isdecimal())
        raise ConfigurationError(
            f"spec.method.freeze.modules: the model has no module {pattern!r}: choose among {', '.join(available)}"
        )
    for module in matching:
        module.requires_grad_(False)


def _freeze_lowest_layers(model: Any, config: FreezeConfig) -> None:
    depths = measure_layer_depths(model, "spec.method.freeze")
    frozen_layers = config.layers or 0
    if frozen_layers > depths.layer_count:
        raise ConfigurationError(
            f"spec.method.freeze.layers: the model has {depths.layer_count} layers, not {frozen_layers}: lower it"
        )
    lowest_depth = 0 if config.embeddings else 1
    for parameter, depth in depths.by_parameter.items():
        if lowest_depth <= depth <= frozen_layers:
            parameter.requires_grad_(False)
