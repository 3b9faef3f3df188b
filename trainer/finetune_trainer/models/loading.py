"""Loads models with transformers' Auto classes. Only hf:// and s3:// sources use the network."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune_trainer.config import ModelConfig
from finetune_trainer.huggingface.pretrained import explain_errors, max_positions, missing_weights, validate_weights
from finetune_trainer.huggingface.special_tokens import add_stop_token, count_token_ids
from finetune_trainer.models.embeddings import grow_embeddings, validate_vocabulary
from finetune_trainer.models.head import reset_unsuitable_head
from finetune_trainer.models.model_config import build_model_config
from finetune_trainer.models.source import fetch_model_folder
from finetune_trainer.objectives import Objective
from finetune_trainer.protocol import heartbeat
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.base import Credentials

log = logging.getLogger(__name__)
ATTENTION_IMPLEMENTATIONS = {"Auto": None, "Eager": "eager", "SDPA": "sdpa", "FlashAttention2": "flash_attention_2"}


@heartbeat.while_busy()
def load_model(
    config: ModelConfig,
    objective: Objective,
    *,
    dtype: torch.dtype,
    cache: Path,
    credentials: Credentials,
    seed: int,
) -> PreTrainedModel:
    """The document's model for an objective that has its statistics, on the CPU, in `dtype`.

    Random weights, including those of a new head, depend on `seed` alone, so they are the same on all ranks. Raises
    ConfigurationError, which begins with the field, for a source, configuration or attention implementation that cannot be
    used. A tokenizer with more tokens than the pretrained model adds embeddings to it.
    """
    folder = None
    if config.source is not None:
        is_pretrained = config.initialization == "Pretrained"
        folder = fetch_model_folder(config, cache=cache, credentials=credentials, weights=is_pretrained)
    model_config = build_model_config(config, folder, objective)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.initialization == "Pretrained":
            assert folder is not None, "the document's rules require a source for initialization: Pretrained"
            if config.tokenizer is not None:
                validate_vocabulary(folder, objective.processor, trust_remote_code=config.trust_remote_code)
            model = _load_pretrained(config, folder, model_config, dtype, objective)
        else:
            model = _create_from_scratch(config, model_config, dtype, objective)
        if isinstance(objective.processor, PreTrainedTokenizerBase):
            _validate_embeddings(config, model, objective.processor)
            grow_embeddings(model, objective.processor)
            _stop_at_end_of_text(model, objective.processor)
    return model


def validate_positions(model: PreTrainedModel, lengths: Mapping[str, int], prefix_length: int = 0) -> None:
    """Raise ConfigurationError if a sequence can be longer than the model's positions.

    `lengths` has the maximum length in tokens by the field that sets it; virtual tokens before the text add `prefix_length`.
    """
    positions = max_positions(model)
    if positions is None:
        return
    for field, length in lengths.items():
        if prefix_length + length > positions:
            addition = f", with {prefix_length} virtual tokens," if prefix_length else ""
            raise ConfigurationError(
                f"{field}: {length}{addition} is more than the {positions} positions of this {model.config.model_type}: lower "
                "it, or set max_position_embeddings in spec.model.config"
            )


def _load_pretrained(
    config: ModelConfig, folder: Path, model_config: Any, dtype: torch.dtype, objective: Objective
) -> PreTrainedModel:
    setup = objective.model_setup
    with explain_errors(f"spec.model.source: the model at {config.source} cannot be loaded", "correct it or spec.model.config"):
        loaded, loading_info = setup.auto_class.from_pretrained(
            folder, config=model_config, dtype=dtype, attn_implementation=ATTENTION_IMPLEMENTATIONS[config.attention],
            output_loading_info=True, trust_remote_code=config.trust_remote_code,
            ignore_mismatched_sizes=setup.has_new_head,
        )  # fmt: skip
    model: PreTrainedModel = loaded
    missing = missing_weights(loading_info)
    reset_unsuitable_head(model, setup, missing, "spec.model.source")
    if setup.has_new_head:
        missing = {name for name in missing if _is_in_body(name, model)}
    source = f"spec.model.source: {config.source}"
    validate_weights(model, missing, source, "name another source, or correct spec.model.config")
    unused = [name for name in loading_info["unexpected_keys"] if not setup.has_new_head or _is_in_body(name, model)]
    if unused:
        names = ", ".join(sorted(unused)[:3]) + (", …" if len(unused) > 3 else "")
        setup.notes.append(f"{source} has {len(unused)} weights that a {type(model).__name__} does not use ({names})")
    return model


def _is_in_body(weight: str, model: PreTrainedModel) -> bool:
    """Whether a weight belongs to the pretrained body of the model: not to a head, nor to the pooler below one."""
    is_body_weight = model.base_model is model or weight.startswith(f"{model.base_model_prefix}.")
    return is_body_weight and "pooler" not in weight.split(".")


def _create_from_scratch(config: ModelConfig, model_config: Any, dtype: torch.dtype, objective: Objective) -> PreTrainedModel:
    with explain_errors("spec.model.config", "correct its values"):
        model: PreTrainedModel = objective.model_setup.auto_class.from_config(
            model_config, dtype=dtype, attn_implementation=ATTENTION_IMPLEMENTATIONS[config.attention],
            trust_remote_code=config.trust_remote_code,
        )  # fmt: skip
    return model


def _stop_at_end_of_text(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make a model that generates stop at the tokenizer's end-of-text token, which it learns to write; transformers does so."""
    eos = tokenizer.eos_token_id
    if model.can_generate() and eos is not None and add_stop_token(model, eos):
        log.info("generation stops at %s too, the tokenizer's end-of-text token", tokenizer.eos_token)


def _validate_embeddings(config: ModelConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ConfigurationError if the document's own vocab_size is too small for the tokenizer."""
    embeddings, tokens = model.get_input_embeddings().weight.shape[0], count_token_ids(tokenizer)
    if "vocab_size" in config.config and tokens > embeddings:
        raise ConfigurationError(
            f"spec.model.config.vocab_size: the tokenizer has {tokens} tokens and the model {embeddings} embeddings: raise or "
            "remove vocab_size"
        )
