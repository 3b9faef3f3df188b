"""Saves an adapter as a folder for peft, without the frozen weights of its base model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from finetune_trainer.methods.components.frozen_adapters import merge_adapters
from finetune_trainer.methods.components.new_rows import frozen_rows
from finetune_trainer.methods.components.peft_layers import ADAPTER
from finetune_trainer.protocol import heartbeat
from finetune_trainer.protocol.outcome import ConfigurationError

WEIGHTS_FILE = "adapter_model.safetensors"
_METADATA = {"format": "pt"}
_PEFT_PREFIX = "base_model.model."


def validate_adapter_export(model: Any) -> None:
    """Raise ConfigurationError if the model has new embeddings that peft's format for its adapter cannot hold."""
    rows = _first_new_rows(model)
    if not rows:
        return
    if model.peft_config[ADAPTER].peft_type.value != "LORA":
        raise ConfigurationError(
            "spec.export.mergeAdapters: the tokenizer has tokens for which the model has no embeddings, and only LoRA adapters "
            "can hold new ones: set method.type: LoRA, or export.mergeAdapters: true if this method allows it"
        )
    if any(name.endswith(".bias") for name in rows):
        raise ConfigurationError(
            "spec.export.mergeAdapters: the model's head has a bias, whose new entries an adapter cannot hold: remove "
            "export.mergeAdapters"
        )


@heartbeat.while_busy()
def save_adapter(model: Any, state: Mapping[str, torch.Tensor], folder: Path, base: str) -> None:
    """Write the trained weights `state`, by peft's names, as a folder for peft; `base` is the source of the base model."""
    config = model.peft_config[ADAPTER]
    config.base_model_name_or_path = base
    first_rows = _first_new_rows(model)
    new_rows = {key: state[key][first:].contiguous() for key, first in first_rows.items()}
    state = {key: tensor for key, tensor in state.items() if key not in _first_new_rows(model, remove_duplicate=False)}
    if len(model.peft_config) > 1:
        state, model.peft_config[ADAPTER] = merge_adapters(model, state)
    if not config.is_prompt_learning:
        # With save_embedding_layers="auto" peft would query the hub.
        model.save_pretrained(folder, state_dict=state, save_embedding_layers=False, selected_adapters=[ADAPTER])
        if new_rows:
            _add_trained_tokens(folder, new_rows, first_rows)
        model.peft_config[ADAPTER] = config
        return
    # peft would compute the prompt with the live model, which ZeRO-3 partitions over the ranks.
    inference_config = copy.copy(config)
    inference_config.inference_mode = True
    inference_config.save_pretrained(folder)
    [prompt] = state.values()
    save_file({"prompt_embeddings": prompt}, folder / WEIGHTS_FILE, metadata=_METADATA)


def _first_new_rows(model: Any, *, remove_duplicate: bool = True) -> dict[str, int]:
    """The first new row of each parameter of which only new rows are trained; a tied one has one name, or all."""
    parameters = model.named_parameters(remove_duplicate=remove_duplicate)
    return {name: frozen_rows(parameter) for name, parameter in parameters if frozen_rows(parameter)}


def _add_trained_tokens(folder: Path, new_rows: Mapping[str, torch.Tensor], first_rows: Mapping[str, int]) -> None:
    """Add trained rows to a saved LoRA adapter, as peft's `trainable_token_indices`."""
    import peft

    config, weights = peft.LoraConfig.from_pretrained(str(folder)), load_file(folder / WEIGHTS_FILE)
    config.trainable_token_indices = {}
    for key, rows in new_rows.items():
        module = key.removeprefix(_PEFT_PREFIX).removesuffix(".weight")
        first = first_rows[key]
        config.trainable_token_indices[module] = list(range(first, first + len(rows)))
        weights[f"{_PEFT_PREFIX}{module}.token_adapter.trainable_tokens_delta"] = rows
    config.save_pretrained(folder)
    save_file(weights, folder / WEIGHTS_FILE, metadata=_METADATA)
