"""An adapter as a folder for peft, without the weights that it stands beside."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from finetune_trainer.methods.peft_layers import ADAPTER
from finetune_trainer.methods.progressive import merge_adapters


def save_adapter(model: Any, state: Mapping[str, torch.Tensor], folder: Path, base: str) -> None:
    """Writes what was trained, `state` by peft's names, as a folder for peft; `base` is where the frozen weights come from."""
    config = model.peft_config[ADAPTER]
    config.base_model_name_or_path = base
    if len(model.peft_config) > 1:
        state, model.peft_config[ADAPTER] = merge_adapters(model, state)
    if not config.is_prompt_learning:
        # Deciding by itself whether to store embeddings, peft would ask the hub.
        model.save_pretrained(folder, state_dict=state, save_embedding_layers=False, selected_adapters=[ADAPTER])
        model.peft_config[ADAPTER] = config
        return
    from safetensors.torch import save_file

    # peft would have the live model compute the prompt, of which ZeRO-3 leaves each rank a part.
    finished = copy.copy(config)
    finished.inference_mode = True
    finished.save_pretrained(folder)
    [prompt] = state.values()
    save_file({"prompt_embeddings": prompt}, folder / "adapter_model.safetensors", metadata={"format": "pt"})
