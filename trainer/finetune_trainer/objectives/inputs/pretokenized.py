"""Tokenizers for texts that are given as words, which tokenize a list of words like the text with blanks between them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel, Sequence
from transformers import PreTrainedTokenizerBase

from finetune_trainer.objectives.inputs.tokenization import require_offsets
from finetune_trainer.protocol.outcome import ConfigurationError


def word_level_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer, or a copy of it that puts a blank before each word, and before each text.

    Byte-level tokenizers (GPT-2's, RoBERTa's, those trained here) have a token " name" and another one "name", and would take a
    list of words for a text without blanks, which neither their vocabulary nor their model's pretraining has. The copy must be
    exported, so that words and texts remain the same tokens. Raises ConfigurationError for a tokenizer that gives no words of
    its tokens, or cannot be given a blank.
    """
    require_offsets(tokenizer)
    if _is_consistent(tokenizer):
        return tokenizer
    spaced = copy.deepcopy(tokenizer)
    for part in _byte_level_parts(spaced.backend_tokenizer.pre_tokenizer):
        part.add_prefix_space = True
    # Families with a tokenizer class of their own rebuild its parts from this when they are loaded.
    spaced.add_prefix_space = spaced.init_kwargs["add_prefix_space"] = True
    if not _is_consistent(spaced):
        raise ConfigurationError(
            "spec.model.tokenizer: words of a list become other tokens than in a text, and add_prefix_space does not change "
            "that: use another tokenizer"
        )
    return spaced


def _is_consistent(tokenizer: PreTrainedTokenizerBase) -> bool:
    words = ["a", "b"]
    word_tokens = tokenizer(words, is_split_into_words=True)["input_ids"]
    return bool(word_tokens == tokenizer(" ".join(words))["input_ids"])


def _byte_level_parts(pre_tokenizer: Any) -> Iterator[ByteLevel]:
    if isinstance(pre_tokenizer, Sequence):
        for part in pre_tokenizer:  # type: ignore[attr-defined]  # it has no __iter__, and can be indexed
            yield from _byte_level_parts(part)
    elif isinstance(pre_tokenizer, ByteLevel):
        yield pre_tokenizer
