"""Texts become tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from finetune_trainer.data.loading.dataset import Tokens
from finetune_trainer.huggingface.pretrained import training_mode
from finetune_trainer.objectives.base import ObjectiveContext
from finetune_trainer.protocol.outcome import ConfigurationError

Span = tuple[int, int]  # start and end in a text, in characters
SEGMENTS = "token_type_ids"  # the text of a pair that a token belongs to


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Changes when the tokens of a text may change."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend else json.dumps([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())])
    return hashlib.sha256(f"{rules}{tokenizer.eos_token_id}".encode()).hexdigest()


def encoding_fingerprint(tokenizer: PreTrainedTokenizerBase, context: ObjectiveContext) -> list[Any]:
    """Changes when the tokens of a text, or what happens to texts that are too long, may change; JSON."""
    return [tokenizer_fingerprint(tokenizer), context.max_length, context.overlong]


def require_eos_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ConfigurationError for a tokenizer without an end-of-text token."""
    if tokenizer.eos_token_id is None:
        raise ConfigurationError(
            "spec.model.tokenizer: it has no end-of-text token, so the model could not learn to stop: set eos_token in its "
            "tokenizer_config.json, or use another tokenizer"
        )


def require_offsets(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ConfigurationError for a tokenizer that gives no character offsets of its tokens."""
    if not tokenizer.is_fast:
        raise ConfigurationError(
            "spec.model.tokenizer: it has no character offsets of its tokens: use its fast version, or another one"
        )


class SpecialTokens(NamedTuple):
    """The tokens that a tokenizer puts around a text, such as BERT's [CLS] and [SEP]."""

    prefix: Tokens
    suffix: Tokens

    @property
    def total(self) -> int:
        """The number of tokens of both."""
        return len(self.prefix) + len(self.suffix)

    def add_to(self, tokens: Tokens) -> Tokens:
        """The tokens of a text with the special tokens around them."""
        return np.concatenate([self.prefix, tokens, self.suffix]).astype(np.int32)

    def truncate(self, tokens: Tokens, max_length: int) -> Tokens:
        """A text with its special tokens, of which at most `max_length` tokens remain; the suffix is kept."""
        if len(tokens) <= max_length:
            return tokens
        return np.concatenate([tokens[: max_length - len(self.suffix)], self.suffix]).astype(np.int32)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
    """Found by tokenizing a text with and without them: tokenizers have no interface for it."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    return SpecialTokens(np.array(full[:start], np.int32), np.array(full[start + len(bare) :], np.int32))


def separator_tokens(tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """The tokens that a tokenizer puts between the texts of a pair."""
    prefix, suffix = special_tokens(tokenizer)
    bare, pair = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a", "a")["input_ids"]
    return np.array(pair[len(prefix) + len(bare) : len(pair) - len(bare) - len(suffix)], np.int32)


def tokenize(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[Tokens]:
    """The tokens of each text, with the tokenizer's special tokens; a fast tokenizer works on the texts in parallel."""
    encoded = tokenizer(list(texts), return_attention_mask=False, return_token_type_ids=False, verbose=False)
    return [np.array(ids, dtype=np.int32) for ids in encoded["input_ids"]]


def tokenize_with_mask(
    texts: Sequence[str], spans: Sequence[Sequence[Span]], tokenizer: PreTrainedTokenizerBase, **options: Any
) -> Iterator[tuple[Tokens, Tokens]]:
    """For each text its tokens, and for each token 1 if it overlaps one of the text's spans, else 0: int32 and int8."""
    encoded = tokenizer(
        list(texts), return_offsets_mapping=True, return_attention_mask=False, return_token_type_ids=False, verbose=False,
        **options,
    )  # fmt: skip
    for ids, offsets, text_spans in zip(encoded["input_ids"], encoded["offset_mapping"], spans, strict=True):
        starts, ends = np.array(offsets, np.int64).reshape(-1, 2).T
        mask = np.zeros(len(ids), np.int8)
        for start, end in text_spans:
            # Some tokenizers give a token of blanks the empty span after it, hence the second condition.
            mask |= (ends > start) & ((starts < end) | (ends <= end))
        yield np.array(ids, np.int32), mask


def append_eos(tokens: Tokens, eos: int) -> Tokens:
    """The tokens with exactly one end-of-text token at their end."""
    if len(tokens) and tokens[-1] == eos:
        return tokens
    return np.append(tokens, np.int32(eos))


def run_on_short_texts(model: Any, output: str, advice: str) -> torch.Tensor:
    """The `output` of the model, in training mode, for two copies of a short text.

    Raises ConfigurationError, with the advice, for a model that has no such output.
    """
    texts = torch.tensor([[0, 1, 2, 3]] * 2, device=model.device)
    try:
        with training_mode(model, True), torch.no_grad():
            value: torch.Tensor = getattr(model(input_ids=texts), output)
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"spec.model: this {model.config.model_type} gives no {output} for a text: {advice}"
        ) from error
    return value
