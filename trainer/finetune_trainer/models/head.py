"""The head of a finished model: kept where its outputs stand for this run's labels, and otherwise new."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch

from finetune_trainer.objectives.base import ModelSetup


def reset_unsuitable_head(model: Any, setup: ModelSetup, missing: Collection[str], source: str) -> None:
    """Give the head's last layer new random weights if those of the source stand for other labels, and note it.

    `missing` has the names of the weights that are new already; `source` begins the note. Draws random numbers only where it
    replaces weights.
    """
    reason = setup.head_mismatch()
    if reason is None:
        return
    weights = output_weights(model)
    loaded = weights - set(missing)
    if loaded:
        _initialize(model, loaded)
    if loaded or setup.continues_task:
        setup.notes.append(f"{source}: {reason}: the head starts with new weights")


def output_weights(model: Any) -> set[str]:
    """Names of the parameters whose shapes depend on the number of labels: those of the head's last layer."""
    changed_config = copy.deepcopy(model.config)
    changed_config.num_labels = model.config.num_labels + 1
    with torch.device("meta"):
        changed = type(model)(changed_config)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    return {name for name, parameter in changed.named_parameters() if shapes.get(name) != parameter.shape}


def _initialize(model: Any, names: Collection[str]) -> None:
    """Initialize these parameters as the model's family does it, and no others."""
    for module_name in sorted({name.rpartition(".")[0] for name in names}):
        module = model.get_submodule(module_name)
        for name, parameter in module.named_parameters(recurse=False):
            parameter._is_hf_initialized = f"{module_name}.{name}".lstrip(".") not in names  # transformers' mark
        with torch.no_grad():
            model._init_weights(module)
