"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685), by peft."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from finetune_trainer.config.methods.lora import LoRAConfig
from finetune_trainer.methods.base import Method, MethodContext
from finetune_trainer.methods.components.frozen_adapters import load_frozen_adapters
from finetune_trainer.methods.components.heads import all_head_modules, is_within, module_names, new_head_modules
from finetune_trainer.methods.components.peft_layers import add_adapters, is_quantized
from finetune_trainer.methods.components.target_modules import is_linear, validate_target_modules
from finetune_trainer.protocol.outcome import ConfigurationError


class LoRA(Method[LoRAConfig]):
    """Trains a low-rank update of linear layers, and a new head in full; all other weights are frozen, optionally in 4 bits."""

    def require_libraries(self) -> None:
        """Raise ConfigurationError if weights are to be quantized and bitsandbytes is not installed."""
        if self.config.quantization != "None" and importlib.util.find_spec("bitsandbytes") is None:
            raise ConfigurationError(
                "spec.method.lora.quantization: bitsandbytes, which computes with 4-bit weights, is not installed: run the job "
                "on Linux, or remove quantization"
            )

    def apply(self, model: Any, context: MethodContext) -> Any:
        """Return a peft model with a new adapter and the frozen adapters of earlier jobs.

        Raises ConfigurationError for target modules or earlier adapters that do not fit the model, and for a model without
        layers to quantize.
        """
        import peft

        new_heads = new_head_modules(model, context.objective)
        validate_target_modules(model, self.config.target_modules, "spec.method.lora.targetModules", new_heads)
        if self.config.quantization == "NF4":
            # bitsandbytes is not installed everywhere; see require_libraries.
            from finetune_trainer.methods.components.quantization import quantize_linear_layers

            quantize_linear_layers(model, all_head_modules(model, context.objective))
        lora_config = peft.LoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            lora_dropout=self.config.dropout,
            use_dora=self.config.dora,
            use_rslora=self.config.rank_stabilized,
            target_modules=self.config.target_modules or _all_linear_layers(model, new_heads),
            modules_to_save=new_heads or None,
            task_type=context.objective.model_setup.peft_task_type,
        )
        peft_model = add_adapters(model, lora_config)
        if self.config.frozen_adapters:
            load_frozen_adapters(peft_model, self.config.frozen_adapters, context.fetch_adapter)
        return peft_model


def _all_linear_layers(model: Any, heads: Sequence[str]) -> str | list[str]:
    """All linear layers outside the heads, in the form that peft takes: it finds those of a transformers model itself."""
    if isinstance(model, PreTrainedModel):
        return "all-linear"
    names = module_names(model)
    layers = []
    for module in model.base_model.modules():
        name = names[id(module)]
        if (is_linear(module) or is_quantized(module)) and not is_within(name, heads):
            layers.append(name)
    return layers
