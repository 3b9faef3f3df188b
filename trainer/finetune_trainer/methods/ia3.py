"""Learned scales of activations (IA3, Liu et al. 2022, arXiv:2205.05638), by peft."""

from __future__ import annotations

from typing import Any

from finetune_trainer.config.methods.ia3 import IA3Config
from finetune_trainer.methods.base import Method, MethodContext
from finetune_trainer.methods.components.heads import new_head_modules
from finetune_trainer.methods.components.peft_layers import add_adapters
from finetune_trainer.methods.components.target_modules import validate_target_modules
from finetune_trainer.protocol.outcome import ConfigurationError


class IA3(Method[IA3Config]):
    """Trains a vector of scales for each target layer, and a new head in full; all other weights are frozen."""

    def apply(self, model: Any, context: MethodContext) -> Any:
        """Return a peft model.

        Raises ConfigurationError for target layers that the model does not have, and if none are named for a model family for
        which peft has no defaults.
        """
        import peft
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as DEFAULT_TARGETS

        new_heads = new_head_modules(model, context.objective)
        outputs, inputs = self.config.target_modules, self.config.feedforward_modules
        validate_target_modules(model, outputs, "spec.method.ia3.targetModules", new_heads)
        validate_target_modules(model, inputs, "spec.method.ia3.feedforwardModules", new_heads)
        targets = outputs + inputs
        if not targets and model.config.model_type not in DEFAULT_TARGETS:
            raise ConfigurationError(
                f"spec.method.ia3.targetModules: peft has no default layers for a {model.config.model_type}: name its key and "
                "value layers here and its feed-forward layers in feedforwardModules"
            )
        ia3_config = peft.IA3Config(
            target_modules=targets or None,
            feedforward_modules=inputs if targets else None,
            modules_to_save=new_heads or None,
            task_type=context.objective.model_setup.peft_task_type,
        )
        return add_adapters(model, ia3_config)
