"""Adapters of earlier jobs that stay as they are beside the one that learns (progressive networks, Rusu et al. 2016,
arXiv:1606.04671, in the form of low-rank updates, which add up)."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from finetune_trainer.config import LoRAConfig, TrainSpec
from finetune_trainer.methods.peft_layers import ADAPTER, adapted_layers
from finetune_trainer.protocol.outcome import ConfigurationError

PARTS = {"lora_A": 0, "lora_B": 1, "lora_embedding_A": 0, "lora_embedding_B": 1}  # and along which axis ranks add up
_PART = re.compile(rf"(\.(?:{'|'.join(PARTS)}))(?=\.|$)")
Weights = Mapping[str, torch.Tensor]


def load_frozen_adapters(learner: Any, spec: TrainSpec, fetch: Callable[[str, str | None, str], Path]) -> None:
    """Adds the document's earlier adapters to a model with a new one; `fetch(address, secret, field)` gives their folders.

    Raises ConfigurationError for a folder without an adapter of low rank for this model.
    """
    options = spec.method.config
    if not isinstance(options, LoRAConfig) or not options.frozen_adapters:
        return
    names = []
    for number, adapter in enumerate(options.frozen_adapters):
        field = f"spec.method.lora.frozenAdapters[{number}].source"
        names.append(f"frozen-{number}")
        _load(learner, fetch(adapter.source, adapter.credentials, field), names[-1], field)
    learner.base_model.set_adapter([*names, ADAPTER])
    for key, parameter in learner.named_parameters():
        if any(f".{name}." in f"{key}." for name in names):
            parameter.requires_grad_(False)
    learner.disable_adapter = lambda: _only(learner, names)  # for whoever compares with the start


def merge_adapters(model: Any, state: Weights) -> tuple[dict[str, torch.Tensor], Any]:
    """All adapters as one: its weights, out of `state` by peft's names, and its peft configuration.

    Low-rank updates add up to one whose rank is the sum of theirs.
    """
    ranks = {name: config.r for name, config in model.peft_config.items()}
    found = {key: tensor for key, tensor in state.items() if not any(f".{part}." in key for part in PARTS)}
    for name, layer in adapted_layers(model).items():
        for part, axis in PARTS.items():
            pieces = []
            for adapter, rank in ranks.items():
                key = next((key for key in _keys(name, part, adapter) if key in state), None)
                scale = layer.scaling.get(adapter, 1.0) if axis == 0 else 1.0
                pieces.append((rank, None if key is None else state[key] * scale))
            like = next((piece for _, piece in pieces if piece is not None), None)
            if like is not None:
                padded = [_nothing(like, axis, rank) if piece is None else piece for rank, piece in pieces]
                found[_keys(name, part, ADAPTER)[part.startswith("lora_emb")]] = torch.cat(padded, axis)
    configs = model.peft_config.values()
    config = dataclasses.replace(
        model.peft_config[ADAPTER], r=sum(ranks.values()), lora_alpha=sum(ranks.values()), use_rslora=False,
        target_modules=set().union(*(config.target_modules for config in configs)),
    )  # fmt: skip
    return found, config


def _load(learner: Any, folder: Path, name: str, field: str) -> None:
    import peft
    from safetensors.torch import load_file

    try:
        config = peft.LoraConfig.from_pretrained(str(folder))
        weights = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{field}: {folder} holds no adapter that can be read: name the export of a LoRA job with mergeAdapters: false"
        ) from error
    plain = config.peft_type == "LORA" and not config.use_dora and not config.rank_pattern and not config.alpha_pattern
    if not plain or not isinstance(config.target_modules, set | list):
        raise ConfigurationError(f"{field}: it is no plain LoRA adapter, and only these add up: name another, or remove it")
    # A head of its own belongs to its own task; and what is frozen needs no dropout.
    config.modules_to_save, config.lora_dropout, config.inference_mode = None, 0.0, False
    own = {_PART.sub(rf"\1.{name}", key): weight for key, weight in weights.items() if _PART.search(key)}
    try:
        peft.PeftModel.add_adapter(learner, name, config)  # peft's classifiers would give each adapter a head
        unknown = learner.load_state_dict(own, strict=False).unexpected_keys
    except (ValueError, RuntimeError) as error:
        unknown = str(error).splitlines()[-1:]
    if unknown:
        raise ConfigurationError(
            f"{field}: the adapter is for another model ({unknown[0].strip()}): name one that was trained beside the weights "
            "of spec.model"
        )


@contextlib.contextmanager
def _only(learner: Any, names: list[str]) -> Iterator[None]:
    """Within it the new adapter is off; peft's own way would change what learns."""
    layers = list(adapted_layers(learner).values())
    kept = [layer._active_adapter for layer in layers]
    for layer in layers:
        layer._active_adapter = names
    try:
        yield
    finally:
        for layer, active in zip(layers, kept, strict=True):
            layer._active_adapter = active


def _keys(layer: str, part: str, adapter: str) -> tuple[str, str]:
    """What the state may call it: for linear layers a module's weight, for embeddings a parameter."""
    return f"{layer}.{part}.{adapter}.weight", f"{layer}.{part}.{adapter}"


def _nothing(like: torch.Tensor, axis: int, rank: int) -> torch.Tensor:
    shape = list(like.shape)
    shape[axis] = rank
    return like.new_zeros(shape)
