"""Bottleneck adapters in parallel with feed-forward layers (He et al. 2022, arXiv:2110.04366), which become part of these.

Adapters that follow a layer (Houlsby et al. 2019, arXiv:1902.00751) would need code of their own wherever the model is used.
In parallel, with the layer's own activation function, they are further columns and rows of its matrices.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch

from finetune_trainer.config import BottleneckConfig, TrainSpec
from finetune_trainer.methods.heads import heads, is_within
from finetune_trainer.methods.parallel_adapter import Entrance, Exit, without
from finetune_trainer.methods.peft_layers import tell_of_share
from finetune_trainer.methods.target_modules import is_linear, is_transposed
from finetune_trainer.objectives import Objective
from finetune_trainer.protocol.outcome import ConfigurationError

# What configurations call the width within feed-forward layers; where it is None it is four times the model's.
WIDTHS = (
    "intermediate_size", "n_inner", "d_ff", "d_inner", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim",
)  # fmt: skip


class Places(NamedTuple):
    """Names of the layers into the feed-forward networks and out of them."""

    entrances: list[str]
    exits: list[str]


def apply(model: Any, spec: TrainSpec, objective: Objective) -> Any:
    """The model with wider layers and the configuration of these; all else is frozen, but for a new head.

    Raises ConfigurationError for a family whose feed-forward layers are not a linear layer, an activation and a linear layer.
    """
    options = spec.method.config
    assert isinstance(options, BottleneckConfig)
    body = model.base_model
    widths = _widths(body.config, options.size)
    wider = _wider(body, widths)
    places = _places(body, wider, options.size)
    head = heads(model, objective, only_new=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_within(name, head))
    for names, kind in ((places.entrances, Entrance), (places.exits, Exit)):
        for name in names:
            body.set_submodule(name, kind(body.get_submodule(name), options.size))
    for config in {id(part.config): part.config for part in objective.parts(model).values()}.values():
        config.update(widths)
    model.disable_adapter = partial(without, model)  # as peft's models have it, for whoever compares with the start
    tell_of_share(model, spec.method.type)
    return model


def _widths(config: Any, size: int) -> dict[str, int]:
    """What the configuration says of feed-forward layers when they are wider."""
    known = sorted(config.to_dict().keys() & set(WIDTHS))
    return {field: (getattr(config, field) or 4 * config.hidden_size) + size for field in known}


def _wider(model: Any, widths: Mapping[str, int]) -> Any:
    """The model as transformers would make it with these widths, without memory for its weights."""
    config = copy.deepcopy(model.config)
    config.update(widths)
    with torch.device("meta"):
        return type(model)(config)


def _places(model: Any, wider: Any, size: int) -> Places:
    """What the configuration makes wider tells which layers these are, whatever the family calls them."""
    shapes = {name: parameter.shape for name, parameter in wider.named_parameters()}
    changed = {name.rpartition(".")[0] for name, parameter in model.named_parameters() if parameter.shape != shapes.get(name)}
    found = Places([], [])
    for name in sorted(changed):
        layer, other = model.get_submodule(name), wider.get_submodule(name)
        if is_linear(layer):
            grown = tuple(b - a for a, b in zip(layer.weight.shape, other.weight.shape, strict=True))
            into = (0, size) if is_transposed(layer) else (size, 0)
            if grown in (into, into[::-1]):
                (found.entrances if grown == into else found.exits).append(name)
                continue
        raise _unsuitable(model)
    if not found.entrances or not found.exits:
        raise _unsuitable(model)
    return found


def _unsuitable(model: Any) -> ConfigurationError:
    return ConfigurationError(
        f"spec.method.type: this {model.config.model_type} has no feed-forward layers that could be made wider, "
        "which Bottleneck does: set LoRA"
    )
