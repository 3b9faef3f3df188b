"""Which layers an adapter stands beside, and what is said when the document names one that is not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from finetune_trainer.methods.heads import is_within
from finetune_trainer.protocol.outcome import ConfigurationError


def validate_target_modules(model: Any, targets: Sequence[str], field: str, trained: Sequence[str] = ()) -> None:
    """Raises ConfigurationError for a target that is no layer of the model, or is within what is `trained` in full anyway."""
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if name and not any(module.children()) and not is_within(name, trained)
    ]
    linear = sorted({name.rpartition(".")[2] for name, module in layers if is_linear(module)})
    if not targets and not linear:
        raise ConfigurationError("spec.method.type: the model has no linear layers to put adapters on: set Full")
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name, _ in layers):
            raise ConfigurationError(
                f"{field}: the model has no layer {target!r}; choose among {', '.join(linear)}, or leave it empty"
            )


def is_linear(module: torch.nn.Module) -> bool:
    """Whether the layer is a matrix."""
    return isinstance(module, torch.nn.Linear) or is_transposed(module)


def is_transposed(module: torch.nn.Module) -> bool:
    """Whether it is GPT-2's Conv1D, whose matrix has inputs before outputs, and not torch's Linear."""
    return type(module).__name__ == "Conv1D"
