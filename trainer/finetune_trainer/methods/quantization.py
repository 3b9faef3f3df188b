"""Frozen weights in 4 bits (QLoRA, Dettmers et al. 2023, arXiv:2305.14314), by bitsandbytes.

Each is one of 16 values, quantiles of a normal distribution (NF4), times a scale for every 64 of them; the scales are 8-bit
numbers themselves (double quantisation). A forward or backward pass dequantises one layer at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit

from finetune_trainer.methods.heads import is_within
from finetune_trainer.protocol.outcome import ConfigurationError


class NF4Linear(Linear4bit):  # type: ignore[misc]  # bitsandbytes leaves it untyped
    """A linear layer with a weight in 4 bits, which no checkpoint holds: a resumed run makes it from its source again."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, compute_dtype=linear.weight.dtype, device="meta")
        # It would convert weights for inference, and train with what that left.
        self.support_avx512bf16_for_cpu = False
        self.weight = Params4bit(
            linear.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4", module=self
        ).to(linear.weight.device)
        self.bias = linear.bias

    def dequantized(self) -> torch.nn.Linear:
        """A plain layer with the weight that this one computes with, in float32."""
        plain = torch.nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        plain.weight = torch.nn.Parameter(dequantize_4bit(self.weight.data, self.weight.quant_state).float())
        if self.bias is not None:
            plain.bias = torch.nn.Parameter(self.bias.detach().float())
        return plain

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if self.bias is not None:
            destination[f"{prefix}bias"] = self.bias if keep_vars else self.bias.detach()

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, missing: list[str], *rest: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *rest)
        missing.remove(f"{prefix}weight")


def quantize(model: Any, head: Sequence[str]) -> None:
    """Puts all linear layers into 4 bits, in place, but for those of the head; they compute in the precision they had.

    Raises ConfigurationError for a model without such layers.
    """
    linear = [
        (name, module)
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear and not is_within(name, head)
    ]
    if not linear:
        raise ConfigurationError(
            f"spec.method.lora.quantization: this {model.config.model_type} has no linear layers to put into 4 bits: remove it"
        )
    for name, module in linear:
        model.set_submodule(name, NF4Linear(module))
    model.is_loaded_in_4bit = True  # peft asks for this
