"""Models that peft has put adapters on: what is an adapter's, and what a weight is called without them."""

from __future__ import annotations

import logging
from typing import Any

import torch

ADAPTER = "default"  # peft's name for the adapter that learns
log = logging.getLogger(__name__)


def adapt(model: Any, config: Any) -> Any:
    """The model with the adapters of a peft configuration; all its other weights are frozen."""
    import peft

    adapted = peft.get_peft_model(model, config)
    tell_of_share(adapted, config.peft_type.value)
    return adapted


def tell_of_share(model: torch.nn.Module, method: str) -> None:
    """Logs how many of the model's weights are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    trainable, total = sum(size for size, is_trained in sizes if is_trained), sum(size for size, _ in sizes)
    log.info("%s trains %s of %s parameters (%.2f %%)", method, f"{trainable:,}", f"{total:,}", 100 * trainable / total)


def is_adapted(model: Any) -> bool:
    """Whether `adapt` put adapters on this model."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def adapted_layers(model: torch.nn.Module) -> dict[str, Any]:
    """The layers that have an adapter, by their names in the peft model; one that is shared has several."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = model.named_modules(remove_duplicate=False)
    return {name: module for name, module in layers if isinstance(module, BaseTunerLayer)}


def is_quantized(module: Any) -> bool:
    """Whether the layer keeps its weight in fewer bits than it computes with; see `quantization.NF4Linear`."""
    return hasattr(module, "dequantized")


def is_trained_apart(key: str) -> bool:
    """Whether an entry of a peft model's state is an adapter's weight, or one of a layer that is trained in full beside it."""
    return f".{ADAPTER}." in f"{key}." or ".lora_" in key


def is_replaced(key: str) -> bool:
    """Whether the entry is of a layer as it was, of which a copy is trained in full."""
    return ".original_module." in key


def plain_name(name: str) -> str:
    """What transformers calls a weight that has this name in a peft model."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".").replace(f".modules_to_save.{ADAPTER}.", ".")
