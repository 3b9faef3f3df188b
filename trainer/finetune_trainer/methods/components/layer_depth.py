"""The depth of each weight in a model, found from the module structure and therefore for any model family.

Layers are the elements of the outermost ModuleLists of the model's body, counted from the input; a decoder's layers follow its
encoder's. Weights registered before the first layer (embeddings) have depth 0, those after the last layer (final norms, the
head) have a depth of one more than the last layer, and those between two layers the depth of the lower one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from finetune_trainer.methods.components.peft_layers import unwrap_peft_model
from finetune_trainer.protocol.outcome import ConfigurationError


class LayerDepths(NamedTuple):
    """The depth of each parameter, and the number of layers."""

    by_parameter: dict[torch.nn.Parameter, int]
    layer_count: int

    @property
    def head(self) -> int:
        """The depth of the head, the largest of all."""
        return self.layer_count + 1


def measure_layer_depths(model: Any, field: str) -> LayerDepths:
    """The depths of a model's parameters. A tied weight, such as an embedding that is also the head, has that of its first use.

    Raises ConfigurationError, which begins with `field`, for a model without layers.
    """
    base_model = unwrap_peft_model(model)
    layers = _layers(getattr(base_model, "base_model", base_model))
    if not layers:
        raise ConfigurationError(f"{field}: {type(base_model).__name__} has no stack of layers to count: remove it")
    layer_numbers: dict[torch.nn.Parameter, int] = {}
    for number, layer in enumerate(layers, start=1):
        for parameter in layer.parameters():
            layer_numbers[parameter] = number
    head_depth = len(layers) + 1
    depths: dict[torch.nn.Parameter, int] = {}
    current_layer = 0
    for parameter in base_model.parameters():
        current_layer = layer_numbers.get(parameter, current_layer)
        is_after_last_layer = parameter not in layer_numbers and current_layer == len(layers)
        depths[parameter] = head_depth if is_after_last_layer else current_layer
    for parameter in model.parameters():  # weights of an adapter that are registered outside the base model
        depths.setdefault(parameter, head_depth)
    return LayerDepths(depths, len(layers))


def _layers(body: torch.nn.Module) -> list[torch.nn.Module]:
    """The model's layers, each once: tasks may share them."""
    layers: dict[torch.nn.Module, None] = {}
    for stack in _layer_stacks(body):
        for layer in stack:
            layers[layer] = None
    return list(layers)


def _layer_stacks(module: torch.nn.Module) -> list[torch.nn.ModuleList]:
    """The outermost lists of modules that have weights, in the order of their registration."""
    if isinstance(module, torch.nn.ModuleList):
        is_empty = next(module.parameters(), None) is None
        return [] if is_empty else [module]
    stacks: list[torch.nn.ModuleList] = []
    for child in module.children():
        stacks += _layer_stacks(child)
    return stacks
