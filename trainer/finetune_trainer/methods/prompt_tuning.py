"""Virtual tokens before each text, of which only the embeddings are trained (Lester et al. 2021, arXiv:2104.08691), by peft."""

from __future__ import annotations

from typing import Any

import torch

from finetune_trainer.config import PromptTuningConfig, TrainSpec
from finetune_trainer.methods.peft_layers import ADAPTER, adapt
from finetune_trainer.objectives import Objective
from finetune_trainer.protocol.outcome import ConfigurationError


def apply(model: Any, spec: TrainSpec, objective: Objective) -> Any:
    """A peft model whose own weights are frozen. The logits it gives are those of the text, as if nothing stood before it.

    Raises ConfigurationError for an initial text without tokens.
    """
    import peft

    options = spec.method.config
    assert isinstance(options, PromptTuningConfig)
    config = peft.PromptTuningConfig(
        num_virtual_tokens=options.virtual_tokens,
        prompt_tuning_init=peft.PromptTuningInit.SAMPLE_VOCAB,
        task_type=objective.adapter_task,
    )
    learner = adapt(model, config)
    if options.initial_text is not None:
        _begin_as(learner, objective.processor, options.initial_text)

    def leave_out(_model: Any, _arguments: Any, output: Any) -> Any:
        output.logits = output.logits[:, options.virtual_tokens :]
        return output

    learner.register_forward_hook(leave_out)
    return learner


def _begin_as(learner: Any, tokenizer: Any, text: str) -> None:
    tokens = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.long)
    if not len(tokens):
        raise ConfigurationError("spec.method.promptTuning.initialText: it has no tokens: write a text, or remove it")
    weight = learner.prompt_encoder[ADAPTER].embedding.weight
    with torch.no_grad():
        weight.copy_(learner.get_input_embeddings()(tokens.repeat(-(-len(weight) // len(tokens)))[: len(weight)]))
