"""Learnt scales of inner activations (Liu et al. 2022, arXiv:2205.05638), by peft."""

from __future__ import annotations

from typing import Any

from finetune_trainer.config import IA3Config, TrainSpec
from finetune_trainer.methods.heads import heads
from finetune_trainer.methods.peft_layers import adapt
from finetune_trainer.methods.target_modules import validate_target_modules
from finetune_trainer.objectives import Objective
from finetune_trainer.protocol.outcome import ConfigurationError


def apply(model: Any, spec: TrainSpec, objective: Objective) -> Any:
    """A peft model whose other weights are frozen, but for a new head's, which are trained in full.

    Raises ConfigurationError for layers that the model does not have, and for a family that peft does not know if none are
    named.
    """
    import peft
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as FAMILIES

    options = spec.method.config
    assert isinstance(options, IA3Config)
    head = heads(model, objective, only_new=True)
    validate_target_modules(model, options.target_modules, "spec.method.ia3.targetModules", head)
    validate_target_modules(model, options.feedforward_modules, "spec.method.ia3.feedforwardModules", head)
    named = options.target_modules + options.feedforward_modules
    if not named and model.config.model_type not in FAMILIES:
        raise ConfigurationError(
            f"spec.method.ia3.targetModules: which layers of a {model.config.model_type} are keys, values and feed-forward is "
            "not known: name them here and in feedforwardModules"
        )
    config = peft.IA3Config(
        target_modules=named or None,
        feedforward_modules=options.feedforward_modules if named else None,
        modules_to_save=head or None,
        task_type=objective.adapter_task,
    )
    return adapt(model, config)
