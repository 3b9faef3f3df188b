"""Trained embeddings of virtual tokens before each text (prompt tuning, Lester et al. 2021, arXiv:2104.08691), by peft."""

from __future__ import annotations

from typing import Any

import torch

from finetune_trainer.config.methods.prompt_tuning import PromptTuningConfig
from finetune_trainer.methods.base import Method, MethodContext
from finetune_trainer.methods.components.peft_layers import ADAPTER, add_adapters
from finetune_trainer.protocol.outcome import ConfigurationError


class PromptTuning(Method[PromptTuningConfig]):
    """Trains the embeddings of virtual tokens; the model's own weights are frozen."""

    def apply(self, model: Any, context: MethodContext) -> Any:
        """Return a peft model whose logits are those of the text alone, without the virtual tokens' positions.

        Raises ConfigurationError for an initial text without tokens.
        """
        import peft

        virtual_tokens = self.config.virtual_tokens
        prompt_config = peft.PromptTuningConfig(
            num_virtual_tokens=virtual_tokens,
            prompt_tuning_init=peft.PromptTuningInit.SAMPLE_VOCAB,
            task_type=context.objective.model_setup.peft_task_type,
        )
        peft_model = add_adapters(model, prompt_config)
        if self.config.initial_text is not None:
            _initialize_embeddings(peft_model, context.objective.processor, self.config.initial_text)

        def remove_prompt_logits(_model: Any, _inputs: Any, output: Any) -> Any:
            output.logits = output.logits[:, virtual_tokens:]
            return output

        peft_model.register_forward_hook(remove_prompt_logits)
        return peft_model


def _initialize_embeddings(peft_model: Any, tokenizer: Any, text: str) -> None:
    """Set the virtual tokens' embeddings to those of the text's tokens, repeated or truncated to their number."""
    token_ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.long)
    if not len(token_ids):
        raise ConfigurationError("spec.method.promptTuning.initialText: the text has no tokens: write another, or remove it")
    weight = peft_model.prompt_encoder[ADAPTER].embedding.weight
    repetitions = -(-len(weight) // len(token_ids))
    with torch.no_grad():
        weight.copy_(peft_model.get_input_embeddings()(token_ids.repeat(repetitions)[: len(weight)]))
