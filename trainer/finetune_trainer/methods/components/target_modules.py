"""Finds the layers that adapters can be added to, and checks those that the document names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from finetune_trainer.methods.components.heads import is_within
from finetune_trainer.protocol.outcome import ConfigurationError


def validate_target_modules(model: Any, targets: Sequence[str], field: str, fully_trained: Sequence[str] = ()) -> None:
    """Raise ConfigurationError for a target that is not a layer of the model, or is within a module that is fully trained."""
    layers: dict[str, torch.nn.Module] = {}
    for name, module in model.named_modules():
        is_layer = name and not any(module.children())
        if is_layer and not is_within(name, fully_trained):
            layers[name] = module
    linear = sorted({name.rpartition(".")[2] for name, module in layers.items() if is_linear(module)})
    if not targets and not linear:
        raise ConfigurationError("spec.method.type: the model has no linear layers for adapters: set Full")
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in layers):
            raise ConfigurationError(
                f"{field}: the model has no layer {target!r}: choose among {', '.join(linear)}, or leave it empty"
            )


def is_linear(module: torch.nn.Module) -> bool:
    """Whether the layer multiplies its input by a weight matrix: torch's Linear or GPT-2's Conv1D."""
    return isinstance(module, torch.nn.Linear) or has_transposed_weight(module)


def linear_size(layer: Any) -> tuple[int, int]:
    """The numbers of inputs and outputs of a linear layer."""
    if has_transposed_weight(layer):
        inputs, outputs = layer.weight.shape
        return int(inputs), int(outputs)
    return layer.in_features, layer.out_features


def has_transposed_weight(module: torch.nn.Module) -> bool:
    """Whether the layer is GPT-2's Conv1D, whose weight is [inputs, outputs], the transpose of torch's Linear."""
    return type(module).__name__ == "Conv1D"
