"""Bottleneck adapters in parallel with feed-forward layers (He et al. 2022, arXiv:2110.04366).

With the layer's own activation function such an adapter is equivalent to further rows and columns of the layer's matrices, so
the export is a plain model with wider layers. Adapters that follow a layer (Houlsby et al. 2019, arXiv:1902.00751) would need
their own code wherever the model is used.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch

from finetune_trainer.config.methods.bottleneck import BottleneckConfig
from finetune_trainer.methods.base import Method, MethodContext
from finetune_trainer.methods.components.heads import is_within, new_head_modules
from finetune_trainer.methods.components.parallel_adapter import DownProjection, UpProjection, adapters_disabled
from finetune_trainer.methods.components.peft_layers import log_trainable_share
from finetune_trainer.methods.components.target_modules import has_transposed_weight, is_linear
from finetune_trainer.protocol.outcome import ConfigurationError

WIDTH_FIELDS = (
    "intermediate_size", "n_inner", "d_ff", "d_inner", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim",
)  # fmt: skip
"""The names that configurations of transformers have for the width of feed-forward layers; None means 4 x hidden_size."""


class FeedForwardLayers(NamedTuple):
    """Names of the linear layers that project into the feed-forward networks' inner dimension, and of those out of it."""

    up: list[str]
    down: list[str]


class Bottleneck(Method[BottleneckConfig]):
    """Widens the feed-forward layers and trains only the added weights and a new head; all other weights are frozen."""

    def apply(self, model: Any, context: MethodContext) -> Any:
        """Return the model with wider feed-forward layers, and a configuration that describes them.

        Raises ConfigurationError for a model family whose feed-forward networks are not linear, activation, linear.
        """
        body, size = model.base_model, self.config.size
        widths = _wider_widths(body.config, size)
        layers = _find_feed_forward_layers(body, _wider_model(body, widths), size)
        new_heads = new_head_modules(model, context.objective)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(is_within(name, new_heads))
        for name in layers.up:
            body.set_submodule(name, UpProjection(body.get_submodule(name), size))
        for name in layers.down:
            body.set_submodule(name, DownProjection(body.get_submodule(name), size))
        for part in context.objective.exported_models(model).values():
            part.config.update(widths)
        model.disable_adapter = partial(adapters_disabled, model)  # peft's models have this method too
        log_trainable_share(model, "Bottleneck")
        return model


def _wider_widths(config: Any, size: int) -> dict[str, int]:
    """The configuration's fields for the width of feed-forward layers, with values larger by `size`."""
    widths = {}
    for field in sorted(config.to_dict().keys() & set(WIDTH_FIELDS)):
        width = getattr(config, field) or 4 * config.hidden_size
        widths[field] = width + size
    return widths


def _wider_model(model: Any, widths: Mapping[str, int]) -> Any:
    """The model that transformers creates for these widths, without memory for its weights."""
    config = copy.deepcopy(model.config)
    config.update(widths)
    with torch.device("meta"):
        return type(model)(config)


def _find_feed_forward_layers(model: Any, wider_model: Any, size: int) -> FeedForwardLayers:
    """The layers whose shapes differ between the models: this identifies them in any model family."""
    wider_shapes = {name: parameter.shape for name, parameter in wider_model.named_parameters()}
    resized = set()
    for name, parameter in model.named_parameters():
        if parameter.shape != wider_shapes.get(name):
            resized.add(name.rpartition(".")[0])
    layers = FeedForwardLayers([], [])
    for name in sorted(resized):
        growth = _growth(model.get_submodule(name), wider_model.get_submodule(name))
        if growth == (0, size):
            layers.up.append(name)
        elif growth == (size, 0):
            layers.down.append(name)
        else:
            raise _unsupported(model)
    if not layers.up or not layers.down:
        raise _unsupported(model)
    return layers


def _growth(layer: Any, wider_layer: Any) -> tuple[int, ...] | None:
    """How many inputs and outputs a linear layer gained; None for other layers."""
    if not is_linear(layer):
        return None
    growth = tuple(wider - size for size, wider in zip(layer.weight.shape, wider_layer.weight.shape, strict=True))
    return growth if has_transposed_weight(layer) else growth[::-1]


def _unsupported(model: Any) -> ConfigurationError:
    return ConfigurationError(
        f"spec.method.type: this {model.config.model_type} has no feed-forward layers that Bottleneck can widen: set LoRA"
    )
