"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685), by peft."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from finetune_trainer.config import LoRAConfig, TrainSpec
from finetune_trainer.methods.heads import heads, is_within, names_of
from finetune_trainer.methods.peft_layers import adapt, is_quantized
from finetune_trainer.methods.target_modules import is_linear, validate_target_modules
from finetune_trainer.objectives import Objective
from finetune_trainer.protocol.outcome import ConfigurationError


def require_libraries(spec: TrainSpec) -> None:
    """Raises ConfigurationError for quantised weights on a machine that cannot compute with them."""
    options = spec.method.config
    if isinstance(options, LoRAConfig) and options.quantization != "None" and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigurationError(
            "spec.method.lora.quantization: there is no bitsandbytes here, which computes with such weights: run it on Linux, "
            "or remove it"
        )


def apply(model: Any, spec: TrainSpec, objective: Objective) -> Any:
    """A peft model whose other weights are frozen, but for a new head's, which are trained in full.

    Raises ConfigurationError for target modules that the model does not have, and one without layers to quantise.
    """
    import peft

    options = spec.method.config
    assert isinstance(options, LoRAConfig)
    head = heads(model, objective, only_new=True)
    validate_target_modules(model, options.target_modules, "spec.method.lora.targetModules", head)
    if options.quantization == "NF4":
        from finetune_trainer.methods.quantization import quantize

        quantize(model, heads(model, objective))
    config = peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        use_dora=options.dora,
        use_rslora=options.rank_stabilized,
        target_modules=options.target_modules or _all_linear(model, head),
        modules_to_save=head or None,
        task_type=objective.adapter_task,
    )
    return adapt(model, config)


def _all_linear(model: Any, head: Sequence[str]) -> str | list[str]:
    """For peft, which knows by itself what is not the head of a model of transformers."""
    if isinstance(model, PreTrainedModel):
        return "all-linear"
    names = names_of(model)
    linear = [module for module in model.base_model.modules() if is_linear(module) or is_quantized(module)]
    return [names[id(module)] for module in linear if not is_within(names[id(module)], head)]
