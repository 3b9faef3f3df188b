"""Models with peft's adapters: how they are made, and which entries of their state belong to an adapter."""

from __future__ import annotations

import logging
from typing import Any

import torch

ADAPTER = "default"
"""peft's name for the adapter that is trained."""
log = logging.getLogger(__name__)


def add_adapters(model: Any, config: Any) -> Any:
    """Return a peft model with the adapters of a peft configuration; all other weights are frozen."""
    import peft

    peft_model = peft.get_peft_model(model, config)
    log_trainable_share(peft_model, config.peft_type.value)
    return peft_model


def log_trainable_share(model: torch.nn.Module, method: str) -> None:
    """Log how many of the model's parameters are trained."""
    trainable = total = 0
    for parameter in model.parameters():
        total += parameter.numel()
        if parameter.requires_grad:
            trainable += parameter.numel()
    log.info("%s trains %s of %s parameters (%.2f %%)", method, f"{trainable:,}", f"{total:,}", 100 * trainable / total)


def is_peft_model(model: Any) -> bool:
    """Whether the model has adapters that `add_adapters` added."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def unwrap_peft_model(model: Any) -> Any:
    """The transformers model of a peft model, with the adapters inside; the model itself if it is not a peft model."""
    return model.get_base_model() if is_peft_model(model) else model


def adapted_layers(model: torch.nn.Module) -> dict[str, Any]:
    """The layers with an adapter, by their names in the peft model; a shared layer has several names."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = model.named_modules(remove_duplicate=False)
    return {name: module for name, module in layers if isinstance(module, BaseTunerLayer)}


def is_quantized(module: Any) -> bool:
    """Whether the layer stores its weight in fewer bits than it computes with, as `quantization.NF4Linear` does."""
    return hasattr(module, "dequantized")


def is_trained_entry(key: str) -> bool:
    """Whether an entry of a peft model's state is a weight of an adapter, or of a module that is trained in full."""
    return f".{ADAPTER}." in f"{key}." or ".lora_" in key


def is_replaced_entry(key: str) -> bool:
    """Whether an entry of a peft model's state belongs to the original of a module whose copy is trained in full."""
    return ".original_module." in key


def base_model_name(name: str) -> str:
    """The name in the transformers model of a weight with this name in the peft model."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".").replace(f".modules_to_save.{ADAPTER}.", ".")
