"""Tokenizers and models by transformers' Auto classes. Nothing here touches the network but for hf:// addresses."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from finetune_trainer import config
from finetune_trainer.huggingface.pretrained import explained, positions_of, tokenizer_at, validate_weights
from finetune_trainer.models import tokenizer_training
from finetune_trainer.models.tokenizer_training import Corpus
from finetune_trainer.objectives import Objective
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.base import Credentials
from finetune_trainer.storage.download import TOKENIZER_FILES, localize, localize_model

ATTENTION = {"Auto": None, "Eager": "eager", "SDPA": "sdpa", "FlashAttention2": "flash_attention_2"}
OWNED_BY_DOCUMENT = {"dtype": "training.precision", "torch_dtype": "training.precision", "use_cache": "the trainer"}
DECODER_START = "decoder_start_token_id"

Texts = Corpus | Iterable[str] | Callable[[], Iterable[str]]


def load_tokenizer(
    spec: config.ModelConfig,
    texts: Texts,
    *,
    framed: bool = False,
    sentinels: int = 0,
    cache: Path,
    credentials: Credentials,
    alive: Callable[[], None] = lambda: None,
) -> PreTrainedTokenizerBase:
    """The document's tokenizer; if it says so it is learnt from `texts`, once a machine (for the rest see `vocabulary.learn`).

    Padding is as `tokenizer_at` has it. Raises ConfigurationError or DataError.
    """
    wanted = spec.tokenizer
    if wanted and wanted.train:
        if isinstance(texts, Corpus):
            return tokenizer_training.learn_once(
                texts, wanted.train.vocab_size, framed=framed, sentinels=sentinels, cache=cache, alive=alive
            )
        found = texts() if callable(texts) else texts
        return tokenizer_training.learn(found, wanted.train.vocab_size, framed=framed, sentinels=sentinels)
    field = "spec.model.tokenizer.source" if wanted else "spec.model.source"
    chosen = wanted or spec
    assert chosen.source is not None, "the document's rules ask for a source"
    folder = localize(
        chosen.source, cache=cache, credentials=credentials, secret=chosen.credentials, field=field, patterns=TOKENIZER_FILES,
        revision=chosen.revision,
    )  # fmt: skip
    return tokenizer_at(folder, f"{field}: {chosen.source}", trust_remote_code=spec.trust_remote_code)


def load_model(
    spec: config.ModelConfig,
    objective: Objective,
    *,
    dtype: torch.dtype,
    cache: Path,
    credentials: Credentials,
    seed: int,
) -> PreTrainedModel:
    """The document's model for an objective that knows its data, on the CPU, in `dtype`.

    Random weights, of a new head too, are drawn from `seed` alone, so that all ranks draw the same. Raises
    ConfigurationError, beginning with the field, for a source, configuration or attention that cannot be used, and for a
    tokenizer larger than the embedding.
    """
    fetch = localize_model if spec.initialization == "Pretrained" else partial(localize, patterns=TOKENIZER_FILES)
    folder = spec.source and fetch(
        spec.source, cache=cache, credentials=credentials, secret=spec.credentials, field="spec.model.source",
        revision=spec.revision,
    )  # fmt: skip
    settings = _configuration(spec, Path(folder) if folder else None, objective)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if spec.initialization == "Pretrained":
            assert folder
            model = _pretrained(spec, Path(folder), settings, dtype, objective)
        else:
            model = _from_scratch(spec, settings, dtype, objective)
    if isinstance(objective.processor, PreTrainedTokenizerBase):
        _validate_embeddings(spec, model, objective.processor)
    return model


def validate_positions(model: PreTrainedModel, lengths: Mapping[str, int], prefix: int = 0) -> None:
    """Raises ConfigurationError if sequences of a field's tokens, and what precedes them, exceed the model's positions."""
    positions = positions_of(model)
    for field, length in lengths.items():
        if positions and positions < prefix + length:
            beside = f", with {prefix} virtual tokens," if prefix else ""
            raise ConfigurationError(
                f"{field}: {length}{beside} is more than the {positions} positions of this {model.config.model_type}: lower "
                "it, or set max_position_embeddings in spec.model.config"
            )


def _configuration(spec: config.ModelConfig, folder: Path | None, objective: Objective) -> Any:
    overrides, settled = dict(spec.config), objective.model_config_overrides()
    model_type = overrides.pop("model_type", None)
    if folder:
        with explained(f"spec.model.source: {spec.source} holds no usable model configuration", "name another source"):
            known = AutoConfig.from_pretrained(folder, trust_remote_code=spec.trust_remote_code)
        if model_type not in (None, known.model_type):
            raise ConfigurationError(
                f"spec.model.config.model_type: the source is a {known.model_type}, not a {model_type}: remove one of them"
            )
    else:
        with explained("spec.model.config.model_type", "correct it"):
            known = AutoConfig.for_model(model_type)
    _validate_names(overrides, known, OWNED_BY_DOCUMENT | dict.fromkeys(settled, "the objective"))
    if spec.initialization == "Scratch" and isinstance(objective.processor, PreTrainedTokenizerBase):
        tokenizer = objective.processor
        overrides = _special_tokens(spec, tokenizer, known) | {"vocab_size": len(tokenizer)} | overrides
    with explained("spec.model.config", "correct its values"):
        return type(known).from_dict((known.to_dict() if folder else {}) | overrides | settled)


def _special_tokens(spec: config.ModelConfig, tokenizer: PreTrainedTokenizerBase, known: Any) -> dict[str, Any]:
    """Numbers of tokens that have a meaning for the model, by the tokenizer that it is made for."""
    tokens = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    if not known.is_encoder_decoder or spec.tokenizer is None:  # the source's own numbers fit the source's own tokenizer
        return tokens
    # What is written begins with padding, as T5's does; BART forces an end where there is no more room.
    forced = {"forced_eos_token_id": tokenizer.eos_token_id} if getattr(known, "forced_eos_token_id", None) is not None else {}
    return tokens | {DECODER_START: tokenizer.pad_token_id} | forced


def _validate_names(overrides: dict[str, Any], known: Any, owners: dict[str, str]) -> None:
    for name in overrides:
        if name in owners:
            raise ConfigurationError(f"spec.model.config.{name}: {owners[name]} decides this: remove it")
        # Encoder-decoders look for it in their configuration, where T5's does not declare it.
        if name == DECODER_START and known.is_encoder_decoder:
            continue
        if name.startswith("_") or not hasattr(known, name) or callable(getattr(known, name)):
            close = difflib.get_close_matches(name, [*known.to_dict(), *known.attribute_map], n=1)
            advice = f"did you mean {close[0]}?" if close else "remove it or correct its spelling"
            raise ConfigurationError(f"spec.model.config.{name}: {known.model_type} has no such setting; {advice}")


def _pretrained(
    spec: config.ModelConfig, folder: Path, settings: Any, dtype: torch.dtype, objective: Objective
) -> PreTrainedModel:
    with explained(f"spec.model.source: the model at {spec.source} cannot be loaded", "correct it or spec.model.config"):
        model, report = objective.auto_class.from_pretrained(
            folder, config=settings, dtype=dtype, attn_implementation=_attention(spec), output_loading_info=True,
            trust_remote_code=spec.trust_remote_code, ignore_mismatched_sizes=objective.has_new_head,
        )  # fmt: skip
    missing = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    if objective.has_new_head:
        missing = {name for name in missing if _is_of_the_body(name, model)}
    validate_weights(model, missing, f"spec.model.source: {spec.source}", "name another source, or correct spec.model.config")
    loaded: PreTrainedModel = model
    return loaded


def _is_of_the_body(weight: str, model: PreTrainedModel) -> bool:
    """Whether a weight belongs to what pretraining learns; not to a head, nor to the pooler below one."""
    is_below = model.base_model is model or weight.startswith(f"{model.base_model_prefix}.")
    return is_below and "pooler" not in weight.split(".")


def _from_scratch(spec: config.ModelConfig, settings: Any, dtype: torch.dtype, objective: Objective) -> PreTrainedModel:
    with explained("spec.model.config", "correct its values"):
        model: PreTrainedModel = objective.auto_class.from_config(
            settings, dtype=dtype, attn_implementation=_attention(spec), trust_remote_code=spec.trust_remote_code
        )
    return model


def _attention(spec: config.ModelConfig) -> str | None:
    return ATTENTION[spec.attention]


def _validate_embeddings(spec: config.ModelConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    room, needed = model.get_input_embeddings().weight.shape[0], max(tokenizer.get_vocab().values()) + 1
    if needed > room:
        field = "spec.model.config.vocab_size" if "vocab_size" in spec.config else "spec.model.tokenizer"
        raise ConfigurationError(
            f"{field}: the tokenizer has {needed} tokens and the model embeddings for {room}: "
            + ("raise or remove vocab_size" if "vocab_size" in spec.config else "use the model's own tokenizer")
        )
