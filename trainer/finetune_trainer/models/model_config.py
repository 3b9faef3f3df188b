"""Builds the transformers configuration of the model from its source, the document's overrides, and the objective's."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedTokenizerBase

from finetune_trainer.config import ModelConfig
from finetune_trainer.huggingface.pretrained import explain_errors
from finetune_trainer.huggingface.special_tokens import count_token_ids
from finetune_trainer.models.source import fetch_model_folder
from finetune_trainer.objectives import Objective
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.base import Credentials

RESERVED_FIELDS = {"dtype": "training.precision", "torch_dtype": "training.precision", "use_cache": "the trainer"}
"""Fields of model configurations that the document cannot override, and what sets them instead."""
DECODER_START = "decoder_start_token_id"


def build_model_config(config: ModelConfig, folder: Path | None, objective: Objective) -> Any:
    """The transformers configuration of the model; `folder` is the local copy of the source, if there is one.

    Raises ConfigurationError for a source without a configuration, and for fields that the model family does not have or that
    are not the document's to set.
    """
    overrides = dict(config.config)
    objective_overrides = objective.model_setup.config_overrides()
    base = _base_config(config, folder, overrides.pop("model_type", None))
    owners = RESERVED_FIELDS | dict.fromkeys(objective_overrides, "the objective")
    for name in overrides:
        _validate_override(name, base, owners)
    tokenizer = objective.processor
    if config.initialization == "Scratch" and isinstance(tokenizer, PreTrainedTokenizerBase):
        token_ids = _special_token_ids(tokenizer, base, has_own_tokenizer=config.tokenizer is not None)
        overrides = token_ids | {"vocab_size": count_token_ids(tokenizer)} | overrides
    source_fields = base.to_dict() if folder else {}
    _validate_kind(base, objective)
    with explain_errors("spec.model.config", "correct its values"):
        return type(base).from_dict(source_fields | overrides | objective_overrides)


def load_source_config(config: ModelConfig, cache: Path, credentials: Credentials) -> Any:
    """The transformers configuration of the model's source; raises ConfigurationError for a source without one."""
    return _base_config(config, fetch_model_folder(config, cache=cache, credentials=credentials), None)


def _base_config(config: ModelConfig, folder: Path | None, model_type: str | None) -> Any:
    """The configuration of the source, or the default one of the model type if there is no source."""
    if folder is None:
        with explain_errors("spec.model.config.model_type", "correct it"):
            return AutoConfig.for_model(model_type)
    with explain_errors(f"spec.model.source: {config.source} holds no usable model configuration", "name another source"):
        base = AutoConfig.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
    if model_type not in (None, base.model_type):
        raise ConfigurationError(
            f"spec.model.config.model_type: the source is a {base.model_type}, not a {model_type}: remove one of them"
        )
    return base


def _validate_kind(base: Any, objective: Objective) -> None:
    """Raise ConfigurationError if transformers has no model of this family for the objective."""
    auto_class = objective.model_setup.auto_class
    has_own_code = bool(getattr(base, "auto_map", None))
    if not has_own_code and type(base) not in auto_class._model_mapping:
        raise ConfigurationError(
            f"spec.objective.type: transformers has no {auto_class.__name__} of the family {base.model_type}: choose an "
            "objective that suits the model, or another model"
        )


def _special_token_ids(tokenizer: PreTrainedTokenizerBase, base: Any, has_own_tokenizer: bool) -> dict[str, Any]:
    """The ids of the tokenizer's special tokens, for a model that is trained with it from scratch."""
    token_ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    # The source's configuration matches the source's tokenizer already.
    if base.is_encoder_decoder and has_own_tokenizer:
        token_ids[DECODER_START] = tokenizer.pad_token_id  # as T5 does
        if getattr(base, "forced_eos_token_id", None) is not None:  # BART ends a text that reaches the maximum length
            token_ids["forced_eos_token_id"] = tokenizer.eos_token_id
    return token_ids


def _validate_override(name: str, base: Any, owners: Mapping[str, str]) -> None:
    """Raise ConfigurationError for a field that `owners` lists or that the model family does not have."""
    if name in owners:
        raise ConfigurationError(f"spec.model.config.{name}: {owners[name]} sets this: remove it")
    # All encoder-decoders read this field, but T5's configuration does not declare it.
    if name == DECODER_START and base.is_encoder_decoder:
        return
    if name.startswith("_") or not hasattr(base, name) or callable(getattr(base, name)):
        closest = difflib.get_close_matches(name, [*base.to_dict(), *base.attribute_map], n=1)
        remedy = f"did you mean {closest[0]}?" if closest else "remove it or correct its spelling"
        raise ConfigurationError(f"spec.model.config.{name}: {base.model_type} has no such setting; {remedy}")
