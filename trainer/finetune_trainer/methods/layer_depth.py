"""How deep in a model each weight lies, found by structure in any family.

Layers are the elements of the outermost ModuleLists of the model's body, counted from the input on; a decoder's come after its
encoder's. What is registered before the first layer (embeddings) has depth 0, what comes after the
last one (final norms, the head) one more than the last layer, and what lies between two layers the depth of the one before it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from finetune_trainer.methods.peft_layers import is_adapted
from finetune_trainer.protocol.outcome import ConfigurationError


class Depths(NamedTuple):
    """Depth of each parameter, and the number of layers; the head's depth is one more."""

    of: dict[torch.nn.Parameter, int]
    layers: int

    @property
    def head(self) -> int:
        """The largest depth there is."""
        return self.layers + 1


def measure(model: Any, field: str) -> Depths:
    """The depths of a model's parameters; raises ConfigurationError, beginning with the field, for a model without layers.

    A weight that is used twice, such as an embedding that is the head too, has the depth of its first use.
    """
    plain = model.get_base_model() if is_adapted(model) else model
    # Tasks may share their layers.
    layers = list(dict.fromkeys(layer for stack in _stacks(getattr(plain, "base_model", plain)) for layer in stack))
    if not layers:
        raise ConfigurationError(f"{field}: {type(plain).__name__} has no stack of layers to tell apart: remove it")
    within = {parameter: number for number, layer in enumerate(layers, start=1) for parameter in layer.parameters()}
    depths: dict[torch.nn.Parameter, int] = {}
    reached = 0
    for parameter in plain.parameters():
        reached = within.get(parameter, reached)
        depths[parameter] = reached if parameter in within or reached < len(layers) else len(layers) + 1
    for parameter in model.parameters():  # an adapter's own, which stand beside the whole model
        depths.setdefault(parameter, len(layers) + 1)
    return Depths(depths, len(layers))


def _stacks(module: torch.nn.Module) -> list[torch.nn.ModuleList]:
    """The outermost lists of modules that have weights, in the order in which they were registered."""
    if isinstance(module, torch.nn.ModuleList):
        return [module] if next(module.parameters(), None) is not None else []
    return [stack for child in module.children() for stack in _stacks(child)]
