"""Saves an adapter as a folder for peft, without the frozen weights of its base model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from finetune_trainer.methods.components.frozen_adapters import merge_adapters
from finetune_trainer.methods.components.peft_layers import ADAPTER


def save_adapter(model: Any, state: Mapping[str, torch.Tensor], folder: Path, base: str) -> None:
    """Write the trained weights `state`, by peft's names, as a folder for peft; `base` is the source of the base model."""
    config = model.peft_config[ADAPTER]
    config.base_model_name_or_path = base
    if len(model.peft_config) > 1:
        state, model.peft_config[ADAPTER] = merge_adapters(model, state)
    if not config.is_prompt_learning:
        # With save_embedding_layers="auto" peft would query the hub.
        model.save_pretrained(folder, state_dict=state, save_embedding_layers=False, selected_adapters=[ADAPTER])
        model.peft_config[ADAPTER] = config
        return
    from safetensors.torch import save_file

    # peft would compute the prompt with the live model, which ZeRO-3 partitions over the ranks.
    inference_config = copy.copy(config)
    inference_config.inference_mode = True
    inference_config.save_pretrained(folder)
    [prompt] = state.values()
    save_file({"prompt_embeddings": prompt}, folder / "adapter_model.safetensors", metadata={"format": "pt"})
