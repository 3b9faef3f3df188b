"""What is asked of a tokenizer or a model of transformers, whoever it belongs to."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from finetune_trainer.protocol.outcome import ConfigurationError

# What families call a token that never stands in a text, in the order of preference.
PADDING_TOKENS = ("<|padding|>", "<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>", "<unk>")


def tokenizer_at(folder: Path, what: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder; raises ConfigurationError, beginning with `what`, if there is none.

    One without a padding token gets one that stands for nothing else: one that its vocabulary has already, else a new one where
    the model has a spare embedding, so that embeddings keep their size. Only where there is neither (GPT-2), padding is the
    end-of-text token; labels are masked by position and not by token here, so the model still learns to stop.
    """
    with explained(f"{what} holds no tokenizer that transformers can load", "name another source"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    _choose_padding(tokenizer, _embeddings(folder))
    return tokenizer


def tokens_of(asked: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens a text is for a model, or a pair of texts, or a chat that it is to answer."""
    if isinstance(asked, list):
        return len(tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"])
    return len(tokenizer(**asked if isinstance(asked, dict) else {"text": asked}, verbose=False)["input_ids"])


def positions_of(model: PreTrainedModel) -> int | None:
    """How many tokens the model has positions for; None where there may be any number."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return max(positions - _first_position(model), 0) or None if isinstance(positions, int) else None


def validate_weights(model: Any, missing: Collection[str], what: str, advice: str) -> None:
    """Raises ConfigurationError if any are: random weights among learnt ones would work, and badly."""
    if missing:
        names = ", ".join(sorted(missing)[:3]) + (", …" if len(missing) > 3 else "")
        raise ConfigurationError(f"{what} lacks {len(missing)} weights of a {type(model).__name__} ({names}): {advice}")


@contextmanager
def explained(what: str, advice: str) -> Iterator[None]:
    """Turns whatever transformers raises into one sentence that begins with the field.

    It raises errors of many kinds for values that an architecture cannot use, down to a bare KeyError.
    """
    try:
        yield
    except (ConfigurationError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        text = next((line.strip() for line in str(error).splitlines()[::-1] if "Error: " in line), str(error))
        text = text.strip().split("\n", 1)[0].partition(". Should contain one of")[0][:300] or type(error).__name__
        if "attn_implementation" in text or "FlashAttention" in text or "scaled_dot_product_attention" in text:
            raise ConfigurationError(f"spec.model.attention: {text} Set another one, or Auto") from error
        raise ConfigurationError(f"{what} ({text}): {advice}") from error


def _choose_padding(tokenizer: PreTrainedTokenizerBase, embeddings: int) -> None:
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    known = tokenizer.get_vocab()
    existing = [token for token in PADDING_TOKENS if token in known and known[token] != tokenizer.eos_token_id]
    if existing:
        tokenizer.pad_token = existing[0]
    elif max(known.values()) + 1 < embeddings:
        tokenizer.add_special_tokens({"pad_token": PADDING_TOKENS[0]})
    else:
        tokenizer.pad_token = tokenizer.eos_token


def _embeddings(folder: Path) -> int:
    """How many tokens the model beside a tokenizer has embeddings for; 0 if there is no model."""
    try:
        return int(AutoConfig.from_pretrained(folder).get_text_config().vocab_size)
    except (OSError, ValueError, AttributeError):
        return 0


def _first_position(model: PreTrainedModel) -> int:
    """Where positions begin: RoBERTa and its kin count from the padding token's number on."""
    tables = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    paddings = (getattr(table, "padding_idx", None) for table in tables)
    return max((padding + 1 for padding in paddings if padding is not None), default=0)
