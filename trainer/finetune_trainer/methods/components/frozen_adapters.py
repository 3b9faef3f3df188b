"""LoRA adapters of earlier jobs that stay active but frozen while a new one is trained.

These are progressive networks (Rusu et al. 2016, arXiv:1606.04671) in the form of low-rank updates, which can be added.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from finetune_trainer.config.methods.lora import AdapterConfig
from finetune_trainer.methods.components.peft_layers import ADAPTER, adapted_layers
from finetune_trainer.protocol.outcome import ConfigurationError

State = Mapping[str, torch.Tensor]

RANK_AXES = {"lora_A": 0, "lora_B": 1, "lora_embedding_A": 0, "lora_embedding_B": 1}
"""The weights of a LoRA layer, and the axis of each that is as long as the rank."""
_LORA_WEIGHT = re.compile(rf"(\.(?:{'|'.join(RANK_AXES)}))(?=\.|$)")


def load_frozen_adapters(model: Any, adapters: Sequence[AdapterConfig], fetch: Callable[[AdapterConfig, str], Path]) -> None:
    """Add earlier adapters to a peft model with a new one; `fetch(adapter, field)` returns the folder of each.

    Raises ConfigurationError for a folder without a LoRA adapter for this model.
    """
    names = []
    for number, adapter in enumerate(adapters):
        field = f"spec.method.lora.frozenAdapters[{number}].source"
        name = f"frozen-{number}"
        _load_adapter(model, fetch(adapter, field), name, field)
        names.append(name)
    model.base_model.set_adapter([*names, ADAPTER])
    for key, parameter in model.named_parameters():
        if any(f".{name}." in f"{key}." for name in names):
            parameter.requires_grad_(False)
    # Losses that compare with the starting model call this; the starting model includes the earlier adapters.
    model.disable_adapter = lambda: _new_adapter_disabled(model, names)


def merge_adapters(model: Any, state: State) -> tuple[dict[str, torch.Tensor], Any]:
    """Merge all adapters of a model into one whose rank is the sum of theirs.

    `state` has the adapters' weights by peft's names. Returns the weights of the merged adapter and its peft configuration.
    """
    ranks = {name: config.r for name, config in model.peft_config.items()}
    merged = {key: tensor for key, tensor in state.items() if not _LORA_WEIGHT.search(key)}
    for layer_name, layer in adapted_layers(model).items():
        for part in RANK_AXES:
            weight = _stack_ranks(state, layer_name, layer, part, ranks)
            if weight is not None:
                linear_key, embedding_key = _state_keys(layer_name, part, ADAPTER)
                merged[embedding_key if part.startswith("lora_embedding") else linear_key] = weight
    target_modules: set[str] = set()
    for config in model.peft_config.values():
        target_modules |= set(config.target_modules)
    rank = sum(ranks.values())
    merged_config = dataclasses.replace(
        model.peft_config[ADAPTER], r=rank, lora_alpha=rank, use_rslora=False, target_modules=target_modules
    )
    return merged, merged_config


def _stack_ranks(state: State, layer_name: str, layer: Any, part: str, ranks: Mapping[str, int]) -> torch.Tensor | None:
    """One weight of a layer for all adapters; zeros for those that the layer does not have, None if it has none of them.

    Each adapter's scale is multiplied into its `A`, as the merged adapter has a scale of 1.
    """
    axis = RANK_AXES[part]
    weights: dict[str, torch.Tensor] = {}
    for adapter in ranks:
        for key in _state_keys(layer_name, part, adapter):
            if key in state:
                scale = layer.scaling.get(adapter, 1.0) if axis == 0 else 1.0
                weights[adapter] = state[key] * scale
                break
    if not weights:
        return None
    example = next(iter(weights.values()))
    pieces = []
    for adapter, rank in ranks.items():
        if adapter in weights:
            pieces.append(weights[adapter])
        else:
            shape = list(example.shape)
            shape[axis] = rank
            pieces.append(example.new_zeros(shape))
    return torch.cat(pieces, axis)


def _state_keys(layer_name: str, part: str, adapter: str) -> tuple[str, str]:
    """The entries of the state that may hold a weight: of linear layers it is a module's weight, of embeddings a parameter."""
    return f"{layer_name}.{part}.{adapter}.weight", f"{layer_name}.{part}.{adapter}"


def _load_adapter(model: Any, folder: Path, name: str, field: str) -> None:
    config, weights = _read_adapter(folder, field)
    # The head of an earlier task is not used for the new one, and frozen adapters need no dropout.
    config.modules_to_save, config.lora_dropout, config.inference_mode = None, 0.0, False
    state: dict[str, torch.Tensor] = {}
    for key, weight in weights.items():
        if _LORA_WEIGHT.search(key):
            state[_LORA_WEIGHT.sub(rf"\1.{name}", key)] = weight
    import peft

    try:
        # PeftModel's own method: that of peft's classifiers would add a head for each adapter.
        peft.PeftModel.add_adapter(model, name, config)
        problems = model.load_state_dict(state, strict=False).unexpected_keys
    except (ValueError, RuntimeError) as error:
        problems = str(error).splitlines()[-1:]
    if problems:
        raise ConfigurationError(
            f"{field}: the adapter is for another model ({problems[0].strip()}): name one that was trained on the weights of "
            "spec.model"
        )


def _read_adapter(folder: Path, field: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """The peft configuration and the weights of a LoRA adapter that can be added to others."""
    import peft
    from safetensors.torch import load_file

    try:
        config = peft.LoraConfig.from_pretrained(str(folder))
        weights = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{field}: {folder} holds no readable adapter: name the export of a LoRA job with mergeAdapters: false"
        ) from error
    extensions = (config.use_dora, config.rank_pattern, config.alpha_pattern, config.trainable_token_indices)
    is_plain = config.peft_type == "LORA" and not any(extensions)
    if not is_plain or not isinstance(config.target_modules, set | list):
        raise ConfigurationError(f"{field}: only plain LoRA adapters can be added to others: name another, or remove it")
    return config, weights


@contextlib.contextmanager
def _new_adapter_disabled(model: Any, frozen: list[str]) -> Iterator[None]:
    """Within the context only the frozen adapters are active; peft's own method would also change which weights are trained."""
    layers = list(adapted_layers(model).values())
    active_before = [layer._active_adapter for layer in layers]
    for layer in layers:
        layer._active_adapter = frozen
    try:
        yield
    finally:
        for layer, active in zip(layers, active_before, strict=True):
            layer._active_adapter = active
