"""A frozen linear layer with a trained one in parallel; together they are equivalent to one wider linear layer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from finetune_trainer.methods.components.target_modules import has_transposed_weight, linear_size

State = Mapping[str, torch.Tensor]

FROZEN = "base_layer"  # the name that peft uses as well
TRAINED = "added"


class ParallelAdapterLinear(torch.nn.Module):
    """A frozen linear layer, torch's or GPT-2's, and a trained one that adds outputs or inputs to it."""

    axis: int
    """The axis of the merged weight [outputs, inputs] that is longer than the frozen one's."""

    def __init__(self, layer: Any, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.base_layer = layer.requires_grad_(False)
        self.added = torch.nn.Linear(inputs, outputs, bias, device=layer.weight.device, dtype=layer.weight.dtype)

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight: T5 reads the dtype of its layers from it."""
        weight: torch.Tensor = self.base_layer.weight
        return weight

    def merge(self, state: State) -> dict[str, torch.Tensor]:
        """The weight and bias of the equivalent wider layer, from the weights of both layers by their names in this module."""
        frozen, added = state[f"{FROZEN}.weight"], state[f"{TRAINED}.weight"]
        if has_transposed_weight(self.base_layer):
            merged = {"weight": torch.cat([frozen, added.T], 1 - self.axis)}
        else:
            merged = {"weight": torch.cat([frozen, added], self.axis)}
        biases = [state[f"{layer}.bias"] for layer in (FROZEN, TRAINED) if f"{layer}.bias" in state]
        if biases:
            merged["bias"] = torch.cat(biases)
        return merged


class UpProjection(ParallelAdapterLinear):
    """Adds outputs: those of the trained layer follow those of the frozen one."""

    axis = 0

    def __init__(self, layer: Any, size: int) -> None:
        inputs, _ = linear_size(layer)
        super().__init__(layer, inputs, size, bias=layer.bias is not None)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.base_layer(inputs), self.added(inputs)], -1)


class DownProjection(ParallelAdapterLinear):
    """Adds inputs. The trained layer begins at zero, so the model computes the same as before until the first step."""

    axis = 1

    def __init__(self, layer: Any, size: int) -> None:
        _, outputs = linear_size(layer)
        super().__init__(layer, size, outputs, bias=False)
        torch.nn.init.zeros_(self.added.weight)
        self.is_active = True

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        size = self.added.in_features
        base_inputs, added_inputs = torch.split(inputs, [inputs.shape[-1] - size, size], -1)
        outputs: torch.Tensor = self.base_layer(base_inputs)
        if self.is_active:
            outputs = outputs + self.added(added_inputs)
        return outputs


@contextlib.contextmanager
def adapters_disabled(model: torch.nn.Module) -> Iterator[None]:
    """Within the context the model computes as it did before adapters were added."""
    projections = [module for module in model.modules() if isinstance(module, DownProjection)]
    for projection in projections:
        projection.is_active = False
    try:
        yield
    finally:
        for projection in projections:
            projection.is_active = True


def merge_parallel_adapters(model: torch.nn.Module, state: State) -> dict[str, torch.Tensor]:
    """The model's state with each parallel adapter merged into its layer; unchanged for a model that has none.

    A layer without entries in `state`, as on ranks that hold no weights, stays without.
    """
    merged = dict(state)
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, ParallelAdapterLinear):
            layer_state: dict[str, torch.Tensor] = {}
            for key in module.state_dict():
                if f"{name}.{key}" in merged:
                    layer_state[key] = merged.pop(f"{name}.{key}")
            if layer_state:
                merged |= {f"{name}.{key}": tensor for key, tensor in module.merge(layer_state).items()}
    return merged
