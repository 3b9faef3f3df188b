"""Gathers all weights of a trained model in rank 0's host memory, piece by piece, at every ZeRO stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from finetune_trainer.distributed.partitioned import whole_parameters
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.methods.components.new_rows import frozen_rows
from finetune_trainer.methods.components.parallel_adapter import merge_parallel_adapters
from finetune_trainer.methods.components.peft_layers import (
    adapted_layers,
    base_model_name,
    is_peft_model,
    is_quantized,
    is_replaced_entry,
    is_trained_entry,
)
from finetune_trainer.protocol import heartbeat

# Elements gathered at once: the room that one GPU needs in addition to its own partition.
_ELEMENTS_PER_PIECE = 2**27
Weights = dict[str, torch.Tensor]


def gather_model_weights(model: Any, group: ProcessGroup) -> Weights:
    """The model's state by transformers' names, with adapters merged into the weights; empty on ranks other than 0.

    All ranks must call this. The model is left unchanged.
    """
    state = model.state_dict(keep_vars=True)
    if not is_peft_model(model):
        return merge_parallel_adapters(model, _copy_to_host(state, group))
    layers = adapted_layers(model)
    weights = _merge_adapted_layers(layers, group)
    if group.is_first:
        weights |= _dequantize_other_layers(model, layers)
    other_state: Weights = {}
    for key, value in state.items():
        if not is_replaced_entry(key) and not _is_in_layer(key, layers):
            other_state[key] = value
    for key, value in _copy_to_host(other_state, group).items():
        weights[base_model_name(key)] = value
    return weights


def gather_adapter_weights(model: Any, group: ProcessGroup) -> Weights:
    """The trained weights without the frozen ones, by peft's names; empty on ranks other than 0. All ranks must call this.

    Embeddings with new rows are among them, with all their rows.
    """
    state = model.state_dict(keep_vars=True)
    trained = {key: value for key, value in state.items() if is_trained_entry(key) or frozen_rows(value)}
    return _copy_to_host(trained, group)


def _merge_adapted_layers(layers: Mapping[str, Any], group: ProcessGroup) -> Weights:
    """The merged weights of all adapted layers, by transformers' names."""
    merged: Weights = {}
    weights_by_layer: dict[int, Weights] = {}  # a layer that has several names is merged once
    for name, layer in layers.items():
        if id(layer) not in weights_by_layer:
            with whole_parameters(list(layer.parameters())):
                weights_by_layer[id(layer)] = _merge_layer(layer) if group.is_first else {}
            heartbeat.beat()
        for leaf, tensor in weights_by_layer[id(layer)].items():
            merged[base_model_name(f"{name}.{leaf}")] = tensor
    return merged


def _dequantize_other_layers(model: Any, layers: Mapping[str, Any]) -> Weights:
    """The weights of quantized layers without an adapter."""
    weights: Weights = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if is_quantized(module) and not _is_in_layer(f"{name}.", layers):
            weights[base_model_name(f"{name}.weight")] = module.dequantized().weight.detach().to(module.compute_dtype).cpu()
    return weights


def _merge_layer(layer: Any) -> Weights:
    """The weights of an adapted layer as peft merges them, computed in float32 and rounded once; the layer is unchanged."""
    from peft.tuners.lora import Linear

    base = layer.get_base_layer()
    original_data = {parameter: parameter.data for parameter in layer.parameters()}
    quantized = is_quantized(base)
    precision = base.compute_dtype if quantized else base.weight.dtype
    try:
        if quantized:
            layer.base_layer = base.dequantized()
        for parameter in layer.parameters():
            parameter.data = parameter.data.to(torch.float32, copy=True)
        # peft's own layer for 4 bits would round the merged weights to 4 bits again.
        merge = Linear.merge if quantized else type(layer).merge
        merge(layer)
        return {leaf: weight.data.to(precision).cpu() for leaf, weight in layer.get_base_layer().named_parameters()}
    finally:
        layer.base_layer = base
        for parameter, data in original_data.items():
            parameter.data = data
        layer.merged_adapters.clear()


def _is_in_layer(key: str, layers: Mapping[str, Any]) -> bool:
    """Whether one of the modules that contain this weight is among the layers."""
    parts = key.split(".")
    return any(".".join(parts[:end]) in layers for end in range(1, len(parts)))


def _copy_to_host(state: Mapping[str, torch.Tensor], group: ProcessGroup) -> Weights:
    weights: Weights = {}
    copies: dict[int, torch.Tensor] = {}  # tied weights stay one tensor
    for piece in _split_into_pieces(state):
        with whole_parameters(list(piece.values())):
            if group.is_first:
                for name, tensor in piece.items():
                    weights[name] = copies.setdefault(id(tensor), tensor.detach().to("cpu", copy=True))
        heartbeat.beat()
    return weights


def _split_into_pieces(state: Mapping[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    piece: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in state.items():
        elements = int(getattr(tensor, "ds_numel", tensor.numel()))
        if piece and size + elements > _ELEMENTS_PER_PIECE:
            yield piece
            piece, size = {}, 0
        piece[name] = tensor
        size += elements
    if piece:
        yield piece
