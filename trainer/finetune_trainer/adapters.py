"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685), by peft."""

from __future__ import annotations

import logging
from typing import Any

import torch

from finetune_trainer.config import LoRA, Method
from finetune_trainer.outcome import ConfigurationError

ADAPTER = "default"  # peft's name for the only adapter there is
log = logging.getLogger(__name__)


def apply(model: Any, method: Method, seed: int, task_type: str | None = "CAUSAL_LM") -> Any:
    """The model with the method's adapters: with Full the model itself, with LoRA a peft model whose other weights are frozen.

    `task_type` is what peft calls the objective, if it has a name for it.

    Raises ConfigurationError for target modules that the model does not have.
    """
    if method.type == "Full":
        return model
    import peft

    settings = method.lora or LoRA()
    _check_targets(model, settings.target_modules)
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.target_modules or "all-linear",
        task_type=task_type,
    )
    # The adapters' random halves must agree between ranks and runs, whatever was drawn before.
    torch.manual_seed(seed)
    adapted = peft.get_peft_model(model, config)
    trainable, total = adapted.get_nb_trainable_parameters()
    log.info("LoRA trains %s of %s parameters (%.2f %%)", f"{trainable:,}", f"{total:,}", 100 * trainable / total)
    return adapted


def is_adapted(model: Any) -> bool:
    """Whether `apply` put adapters on this model."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def lora_layers(model: torch.nn.Module) -> dict[str, Any]:
    """The layers that have an adapter, by their names in the peft model."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def plain_name(name: str) -> str:
    """What transformers calls a weight that has this name in a peft model."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def _check_targets(model: torch.nn.Module, targets: list[str]) -> None:
    names = [name for name, module in model.named_modules() if name and not any(module.children())]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            linear = {name.rpartition(".")[2] for name, module in model.named_modules() if _is_adaptable(module)}
            raise ConfigurationError(
                f"spec.method.lora.targetModules: the model has no layer {target!r}; "
                f"choose among {', '.join(sorted(linear))}, or leave it empty for all linear layers"
            )


def _is_adaptable(module: torch.nn.Module) -> bool:
    """Whether the layer is a matrix: torch's Linear, or GPT-2's Conv1D, which is one transposed."""
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"
