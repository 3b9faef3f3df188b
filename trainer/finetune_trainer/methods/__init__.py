"""Fine-tuning methods: one file for each, with the name of the file of its options in `config/methods`.

What several of them are built from is in `components`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from finetune_trainer.config import MethodSpec
from finetune_trainer.config.discovery import module_name
from finetune_trainer.methods.base import Method, MethodContext
from finetune_trainer.methods.components.freezing import freeze_parameters
from finetune_trainer.methods.components.new_rows import train_new_rows
from finetune_trainer.protocol import heartbeat

__all__ = ["Method", "MethodContext", "apply_method", "create_method"]


def create_method(spec: MethodSpec) -> Method[Any]:
    """The method that the document chooses, with its options."""
    module = import_module(f"{__name__}.{module_name(type(spec.config))}")
    method_class: type[Method[Any]] = getattr(module, spec.type)
    return method_class(spec.config)


@heartbeat.while_busy()
def apply_method(model: Any, spec: MethodSpec, context: MethodContext) -> Any:
    """Return the model to train: weights that the method does not train are frozen, and adapters are added.

    Raises ConfigurationError if the method cannot be applied to this model.
    """
    # Adapters are initialized from the seed alone, so that they are equal on all ranks and in all runs.
    torch.manual_seed(context.seed)
    trained_model = create_method(spec).apply(model, context)
    if spec.freeze:
        freeze_parameters(trained_model, spec.freeze)
    train_new_rows(trained_model)
    return trained_model
