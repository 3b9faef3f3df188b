"""All weights of a trained model on rank 0's host memory, gathered piece by piece whatever the ZeRO stage."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from finetune_trainer.adapters import ADAPTER, is_adapted, lora_layers, plain_name
from finetune_trainer.world import World

# Elements gathered at once; what one GPU must have room for on top of its own share.
_PIECE = 2**27
Weights = dict[str, torch.Tensor]


def whole_model(model: Any, world: World, alive: Callable[[], None]) -> Weights:
    """The model's state by transformers' own names, adapters added into the weights; empty on ranks other than 0.

    All ranks must call it. The model itself stays as it is. `alive` is called after each piece.
    """
    if not is_adapted(model):
        return _collect(model.state_dict(keep_vars=True), world, alive)
    merged: Weights = {}
    layers = lora_layers(model)
    for name, layer in layers.items():
        with _gathered(list(layer.parameters())):
            if world.is_first:
                base = layer.get_base_layer().weight
                delta = layer.get_delta_weight(ADAPTER)
                merged[plain_name(f"{name}.weight")] = (base.detach().float() + delta.detach().float()).to(base.dtype).cpu()
        alive()
    rest = {
        key: value
        for key, value in model.state_dict(keep_vars=True).items()
        if "lora_" not in key and plain_name(key) not in merged and not _is_merged_elsewhere(key, layers)
    }
    return merged | {plain_name(key): value for key, value in _collect(rest, world, alive).items()}


def adapter_alone(model: Any, world: World, alive: Callable[[], None]) -> Weights:
    """The adapter's own weights by peft's names; empty on ranks other than 0. All ranks must call it."""
    return _collect({k: v for k, v in model.state_dict(keep_vars=True).items() if "lora_" in k}, world, alive)


def _is_merged_elsewhere(key: str, layers: Mapping[str, Any]) -> bool:
    # Other ranks have no merged weights to compare names with, but must gather the same pieces.
    owner, _, leaf = key.rpartition(".")
    return leaf == "weight" and owner.removesuffix(".base_layer") in layers


def _collect(state: Mapping[str, torch.Tensor], world: World, alive: Callable[[], None]) -> Weights:
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
