"""All weights of a trained model on rank 0's host memory, gathered piece by piece whatever the ZeRO stage."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.methods.parallel_adapter import joined
from finetune_trainer.methods.peft_layers import (
    adapted_layers,
    is_adapted,
    is_quantized,
    is_replaced,
    is_trained_apart,
    plain_name,
)

# Elements gathered at once; what one GPU must have room for on top of its own share.
_PIECE = 2**27
Weights = dict[str, torch.Tensor]


def whole_model(model: Any, world: ProcessGroup, alive: Callable[[], None]) -> Weights:
    """The model's state by transformers' own names, adapters added into the weights; empty on ranks other than 0.

    All ranks must call it. The model itself stays as it is. `alive` is called after each piece.
    """
    if not is_adapted(model):
        return joined(model, _collect(model.state_dict(keep_vars=True), world, alive))
    merged: Weights = {}
    layers = adapted_layers(model)
    own: dict[int, Weights] = {}  # of a layer with several names once
    for name, layer in layers.items():
        if id(layer) not in own:
            with _gathered(list(layer.parameters())):
                own[id(layer)] = _merged(layer) if world.is_first else {}
            alive()
        merged |= {plain_name(f"{name}.{leaf}"): tensor for leaf, tensor in own[id(layer)].items()}
    for name, module in model.named_modules(remove_duplicate=False):
        if is_quantized(module) and world.is_first and not any(parent in layers for parent in _parents(f"{name}.")):
            merged[plain_name(f"{name}.weight")] = module.dequantized().weight.detach().to(module.compute_dtype).cpu()
    rest = {
        key: value
        for key, value in model.state_dict(keep_vars=True).items()
        if not is_replaced(key) and not any(parent in layers for parent in _parents(key))
    }
    return merged | {plain_name(key): value for key, value in _collect(rest, world, alive).items()}


def adapter_alone(model: Any, world: ProcessGroup, alive: Callable[[], None]) -> Weights:
    """What was trained beside the frozen weights, by peft's names; empty on ranks other than 0. All ranks must call it."""
    state = model.state_dict(keep_vars=True)
    return _collect({key: value for key, value in state.items() if is_trained_apart(key)}, world, alive)


def _merged(layer: Any) -> Weights:
    """The weights of an adapted layer as peft merges them, computed in float32 and rounded once; the layer stays as it is."""
    from peft.tuners.lora import Linear

    base = layer.get_base_layer()
    kept = {parameter: parameter.data for parameter in layer.parameters()}
    quantized = is_quantized(base)
    precision = base.compute_dtype if quantized else base.weight.dtype
    try:
        if quantized:
            layer.base_layer = base.dequantized()
        for parameter in layer.parameters():
            parameter.data = parameter.data.to(torch.float32, copy=True)
        # peft's own layer for 4 bits would round what was merged to 4 bits again.
        (Linear if quantized else type(layer)).merge(layer)
        return {leaf: weight.data.to(precision).cpu() for leaf, weight in layer.get_base_layer().named_parameters()}
    finally:
        layer.base_layer = base
        for parameter, data in kept.items():
            parameter.data = data
        layer.merged_adapters.clear()


def _parents(key: str) -> Iterator[str]:
    """The names of all modules that a weight is in, from the whole model's down."""
    parts = key.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts)))


def _collect(state: Mapping[str, torch.Tensor], world: ProcessGroup, alive: Callable[[], None]) -> Weights:
    collected: Weights = {}
    hosts: dict[int, torch.Tensor] = {}  # tied weights stay one tensor
    for piece in _pieces(state):
        with _gathered(list(piece.values())):
            if world.is_first:
                for name, tensor in piece.items():
                    collected[name] = hosts.setdefault(id(tensor), tensor.detach().to("cpu", copy=True))
        alive()
    return collected


def _pieces(state: Mapping[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    piece: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in state.items():
        elements = int(getattr(tensor, "ds_numel", tensor.numel()))
        if piece and size + elements > _PIECE:
            yield piece
            piece, size = {}, 0
        piece[name] = tensor
        size += elements
    if piece:
        yield piece


@contextlib.contextmanager
def _gathered(tensors: list[torch.Tensor]) -> Iterator[None]:
    partitioned = list({id(tensor): tensor for tensor in tensors if hasattr(tensor, "ds_id")}.values())
    if not partitioned:
        yield
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters(partitioned), torch.no_grad():
        yield
