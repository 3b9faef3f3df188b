"""What objectives over text share: how a text becomes tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from finetune_trainer.data.loading.dataset import Tokens
from finetune_trainer.protocol.outcome import ConfigurationError

Span = tuple[int, int]  # where something begins and ends in a text, in characters
SEGMENTS = "token_type_ids"  # which text of a pair a token belongs to


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """What changes when the tokens of a text may."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend else json.dumps([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())])
    return hashlib.sha256(f"{rules}{tokenizer.eos_token_id}".encode()).hexdigest()


def require_eos_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ConfigurationError for a tokenizer without an end-of-text token."""
    if tokenizer.eos_token_id is None:
        raise ConfigurationError(
            "spec.model.tokenizer: it has no end-of-text token, so the model could not learn to stop: set eos_token in its "
            "tokenizer_config.json, or use another tokenizer"
        )


def require_offsets(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ConfigurationError for a tokenizer that does not tell where in a text its tokens come from."""
    if not tokenizer.is_fast:
        raise ConfigurationError(
            "spec.model.tokenizer: it does not tell which words its tokens come from: use its fast version, or another one"
        )


class Frame(NamedTuple):
    """The tokens that a tokenizer puts around a text, such as BERT's [CLS] and [SEP]."""

    before: Tokens
    after: Tokens

    def around(self, tokens: Tokens) -> Tokens:
        """A text's tokens within the frame."""
        return np.concatenate([self.before, tokens, self.after]).astype(np.int32)

    def cut(self, framed: Tokens, max_length: int) -> Tokens:
        """What stands in the frame, shortened at its end so that with it there are at most `max_length` tokens."""
        if len(framed) <= max_length:
            return framed
        return np.concatenate([framed[: max_length - len(self.after)], self.after]).astype(np.int32)


def frame(tokenizer: PreTrainedTokenizerBase) -> Frame:
    """Found by comparing a text with and without it: tokenizers do not tell."""
    bare, framed = (tokenizer("a", add_special_tokens=add)["input_ids"] for add in (False, True))
    begin = next(i for i in range(len(framed)) if framed[i : i + len(bare)] == bare)
    return Frame(np.array(framed[:begin], np.int32), np.array(framed[begin + len(bare) :], np.int32))


def between(tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """The tokens that a tokenizer puts between the texts of a pair."""
    before, after = frame(tokenizer)
    bare, pair = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a", "a")["input_ids"]
    return np.array(pair[len(before) + len(bare) : len(pair) - len(bare) - len(after)], np.int32)


def tokenize(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[Tokens]:
    """The tokens of each text, with those the tokenizer adds of its own; a fast one works on the texts in parallel."""
    encoded = tokenizer(list(texts), return_attention_mask=False, return_token_type_ids=False, verbose=False)
    return [np.array(ids, dtype=np.int32) for ids in encoded["input_ids"]]


def tokenize_marked(
    texts: Sequence[str], spans: Sequence[Sequence[Span]], tokenizer: PreTrainedTokenizerBase, **settings: Any
) -> Iterator[tuple[Tokens, Tokens]]:
    """Of each text the tokens, and for each of them 1 if it has a part in one of the text's spans, else 0."""
    encoded = tokenizer(
        list(texts), return_offsets_mapping=True, return_attention_mask=False, return_token_type_ids=False, verbose=False,
        **settings,
    )  # fmt: skip
    for ids, offsets, wanted in zip(encoded["input_ids"], encoded["offset_mapping"], spans, strict=True):
        begins, ends = np.array(offsets, np.int64).reshape(-1, 2).T
        marks = np.zeros(len(ids), np.int8)
        for begin, end in wanted:
            # Some tokenizers shrink a token of blanks to the place behind it, hence the second way to be within.
            marks |= (ends > begin) & ((begins < end) | (ends <= end))
        yield np.array(ids, np.int32), marks


def ended(tokens: Tokens, eos: int) -> Tokens:
    """The tokens with one end-of-text token at their end."""
    return tokens if len(tokens) and tokens[-1] == eos else np.append(tokens, np.int32(eos))


def output_of(model: Any, name: str, advice: str) -> torch.Tensor:
    """What a model that is about to start makes of a short text twice, in training; raises ConfigurationError if nothing."""
    twice = torch.tensor([[0, 1, 2, 3]] * 2, device=model.device)
    was_training = model.training
    try:
        with torch.no_grad():
            found: torch.Tensor = getattr(model.train()(input_ids=twice), name)
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigurationError(f"spec.model: this {model.config.model_type} gives no {name} for a text: {advice}") from error
    finally:
        model.train(was_training)
    return found
