"""Helpers for pretrained models and tokenizers of transformers: loading, sizes, and error messages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from finetune_trainer.huggingface.special_tokens import set_padding_token
from finetune_trainer.protocol.outcome import ConfigurationError

ATTENTION_ERRORS = ("attn_implementation", "FlashAttention", "scaled_dot_product_attention")
"""Parts of transformers' error messages about the attention implementation."""


def load_pretrained_tokenizer(folder: Path, source: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, with a padding token; see `set_padding_token`.

    Raises ConfigurationError, which begins with `source`, if the folder has none.
    """
    with explain_errors(f"{source} holds no tokenizer that transformers can load", "name another source"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    set_padding_token(tokenizer, _embedding_count(folder, trust_remote_code))
    return tokenizer


@contextmanager
def training_mode(model: torch.nn.Module, enabled: bool) -> Iterator[None]:
    """Put the model into training mode, or into evaluation mode; afterwards it has the mode that it had."""
    was_training = model.training
    model.train(enabled)
    try:
        yield
    finally:
        model.train(was_training)


def count_tokens(prompt: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """The number of tokens that a model reads for a prompt: a text, a pair of texts, or a chat that it is to answer."""
    if isinstance(prompt, list):
        return len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"])
    arguments = prompt if isinstance(prompt, dict) else {"text": prompt}
    return len(tokenizer(**arguments, verbose=False)["input_ids"])


def max_positions(model: PreTrainedModel) -> int | None:
    """The longest sequence that the model has positions for, in tokens; None for models without a limit."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(positions, int):
        return None
    usable_positions = positions - _first_position(model)
    return usable_positions if usable_positions > 0 else None


def missing_weights(loading_info: Mapping[str, Any]) -> set[str]:
    """Names of the weights that `from_pretrained` initialized at random: absent in the source, or of another shape there."""
    missing = set(loading_info["missing_keys"])
    for name, *_ in loading_info["mismatched_keys"]:
        missing.add(name)
    return missing


def validate_weights(model: Any, missing: Collection[str], source: str, remedy: str) -> None:
    """Raise ConfigurationError if weights are missing: a model with a few random weights would run, but badly."""
    if missing:
        names = ", ".join(sorted(missing)[:3]) + (", …" if len(missing) > 3 else "")
        raise ConfigurationError(f"{source} lacks {len(missing)} weights of a {type(model).__name__} ({names}): {remedy}")


@contextmanager
def explain_errors(problem: str, remedy: str) -> Iterator[None]:
    """Turn all errors of transformers into a ConfigurationError of one sentence; `problem` begins with the field.

    For values that an architecture cannot use transformers raises errors of many types, down to a bare KeyError.
    """
    try:
        yield
    except (ConfigurationError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        reason = _reason(error)
        if "custom code" in reason or "trust_remote_code" in reason:
            raise ConfigurationError(
                "spec.model.trustRemoteCode: the source is loaded by code of its own, which is not run unasked: read the code "
                "and set trustRemoteCode: true, or name another source"
            ) from error
        if any(part in reason for part in ATTENTION_ERRORS):
            raise ConfigurationError(f"spec.model.attention: {reason} Set another one, or Auto") from error
        raise ConfigurationError(f"{problem} ({reason}): {remedy}") from error


def _reason(error: Exception) -> str:
    """The most specific line of an error's message, at most 300 characters."""
    message = str(error)
    for line in reversed(message.splitlines()):
        if "Error: " in line:
            message = line
            break
    first_line = message.strip().split("\n", 1)[0]
    return first_line.partition(". Should contain one of")[0][:300] or type(error).__name__


def _embedding_count(folder: Path, trust_remote_code: bool) -> int:
    """The number of token embeddings of the model in a tokenizer's folder; 0 if there is no model."""
    try:
        return int(AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code).get_text_config().vocab_size)
    except (OSError, ValueError, AttributeError):
        return 0


def _first_position(model: PreTrainedModel) -> int:
    """The number of the first position: RoBERTa and its relatives count from the padding token's id + 1."""
    first = 0
    for name, module in model.named_modules():
        padding_id = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding_id is not None:
            first = max(first, padding_id + 1)
    return first
