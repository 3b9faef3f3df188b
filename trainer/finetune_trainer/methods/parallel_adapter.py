"""Linear layers with a trained part beside the frozen one, which together are a wider linear layer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from finetune_trainer.methods.target_modules import is_transposed

BESIDE = "added"  # the trained part; the frozen one has peft's name for it
FROZEN = "base_layer"


class Widened(torch.nn.Module):
    """A linear layer, torch's or GPT-2's, and another of the same kind of input and output beside it."""

    axis: int
    """Of the joint weight [outputs, inputs], the one that is longer."""

    def __init__(self, layer: Any, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.base_layer = layer.requires_grad_(False)
        self.added = torch.nn.Linear(inputs, outputs, bias, device=layer.weight.device, dtype=layer.weight.dtype)

    @property
    def weight(self) -> torch.Tensor:
        """The frozen one, as T5 asks its layers for their precision."""
        found: torch.Tensor = self.base_layer.weight
        return found

    def joint(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The wider layer's weight and bias, from the weights of both parts by their names in this module."""
        # GPT-2's layers are transposed, and what is beside them is not.
        transposed = is_transposed(self.base_layer)
        own = state[f"{FROZEN}.weight"]
        added = state[f"{BESIDE}.weight"]
        found = {"weight": torch.cat([own, added.T], 1 - self.axis) if transposed else torch.cat([own, added], self.axis)}
        biases = [state[f"{part}.bias"] for part in (FROZEN, BESIDE) if f"{part}.bias" in state]
        return found | ({"bias": torch.cat(biases)} if biases else {})


class Entrance(Widened):
    """It has more outputs: those that are added follow its own."""

    axis = 0

    def __init__(self, layer: Any, size: int) -> None:
        super().__init__(layer, _inputs(layer), size, layer.bias is not None)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.base_layer(inputs), self.added(inputs)], -1)


class Exit(Widened):
    """It has more inputs; what it makes of those that are added begins as nothing."""

    axis = 1

    def __init__(self, layer: Any, size: int) -> None:
        super().__init__(layer, size, _outputs(layer), bias=False)
        torch.nn.init.zeros_(self.added.weight)
        self.active = True

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        own, added = torch.split(inputs, [inputs.shape[-1] - self.added.in_features, self.added.in_features], -1)
        found: torch.Tensor = self.base_layer(own)
        return found + self.added(added) if self.active else found


@contextlib.contextmanager
def without(model: torch.nn.Module) -> Iterator[None]:
    """Within it the model computes as if nothing had been added."""
    exits = [module for module in model.modules() if isinstance(module, Exit)]
    for one in exits:
        one.active = False
    try:
        yield
    finally:
        for one in exits:
            one.active = True


def joined(model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The model's state with each widened layer as one; `state` itself for a model without such layers."""
    found = dict(state)
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Widened):
            own = {key: found.pop(f"{name}.{key}") for key in module.state_dict() if f"{name}.{key}" in found}
            found |= {f"{name}.{leaf}": tensor for leaf, tensor in module.joint(own).items()} if own else {}
    return found


def _inputs(layer: Any) -> int:
    return int(layer.weight.shape[0] if is_transposed(layer) else layer.in_features)


def _outputs(layer: Any) -> int:
    return int(layer.nf if is_transposed(layer) else layer.out_features)
