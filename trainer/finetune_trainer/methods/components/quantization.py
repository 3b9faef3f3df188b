"""Frozen weights in 4 bits (QLoRA, Dettmers et al. 2023, arXiv:2305.14314), by bitsandbytes.

Each weight is one of 16 values, the quantiles of a normal distribution (NF4), times a scale for each block of 64 weights; the
scales are quantized to 8 bits themselves (double quantization). Forward and backward passes dequantize one layer at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit

from finetune_trainer.methods.components.heads import is_within
from finetune_trainer.protocol.outcome import ConfigurationError


class NF4Linear(Linear4bit):  # type: ignore[misc]  # bitsandbytes is untyped
    """A linear layer with a 4-bit weight.

    Checkpoints do not contain the weight: a resumed run quantizes it again from the model's source.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, compute_dtype=linear.weight.dtype, device="meta")
        # Otherwise bitsandbytes converts the weight for inference on such CPUs, and training continues with the converted one.
        self.support_avx512bf16_for_cpu = False
        self.weight = Params4bit(
            linear.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4", module=self
        ).to(linear.weight.device)
        self.bias = linear.bias

    def dequantized(self) -> torch.nn.Linear:
        """A plain layer in float32 with the weight that this layer computes with."""
        plain = torch.nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        plain.weight = torch.nn.Parameter(dequantize_4bit(self.weight.data, self.weight.quant_state).float())
        if self.bias is not None:
            plain.bias = torch.nn.Parameter(self.bias.detach().float())
        return plain

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if self.bias is not None:
            destination[f"{prefix}bias"] = self.bias if keep_vars else self.bias.detach()

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, missing_keys: list[str], *rest: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing_keys, *rest)
        missing_keys.remove(f"{prefix}weight")


def quantize_linear_layers(model: Any, heads: Sequence[str]) -> None:
    """Replace all linear layers outside the heads by 4-bit ones, in place; they compute in the dtype that they had.

    Raises ConfigurationError for a model without such layers.
    """
    linear_layers: dict[str, torch.nn.Linear] = {}
    for name, module in model.named_modules():
        if type(module) is torch.nn.Linear and not is_within(name, heads):
            linear_layers[name] = module
    if not linear_layers:
        raise ConfigurationError(
            f"spec.method.lora.quantization: this {model.config.model_type} has no linear layers to quantize: remove it"
        )
    for name, module in linear_layers.items():
        model.set_submodule(name, NF4Linear(module))
    model.is_loaded_in_4bit = True  # peft reads this
