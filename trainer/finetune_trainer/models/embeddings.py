"""Fits the embeddings of a pretrained model to its tokenizer, and marks the rows that are new."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from finetune_trainer.huggingface.special_tokens import count_token_ids
from finetune_trainer.protocol.outcome import ConfigurationError

log = logging.getLogger(__name__)
MINIMUM_SHARED_VOCABULARY = 0.5
"""Share of the model's tokens that another tokenizer must have under the same ids; extensions of a vocabulary have all."""


def grow_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add a row to the embeddings, and to a head over the vocabulary, for each token id that has none; tied weights stay tied.

    transformers draws the new rows close to the mean of the old ones, so that new tokens are as likely as others (Hewitt 2021,
    https://nlp.stanford.edu/~johnhew/vocab-expansion.html). More rows than tokens are kept: many models are padded.
    """
    old_count = model.get_input_embeddings().weight.shape[0]
    new_count = count_token_ids(tokenizer)
    if new_count <= old_count:
        return
    model.resize_token_embeddings(new_count, mean_resizing=True)
    for parameter in _vocabulary_parameters(model):
        if parameter.shape[0] == new_count:
            parameter.first_new_row = old_count  # type: ignore[attr-defined]
    log.info("the tokenizer has %d tokens and the model %d embeddings: the others were added", new_count, old_count)


def first_new_row(parameter: torch.Tensor) -> int | None:
    """The index of the first row that `grow_embeddings` added to the parameter; None without new rows."""
    row: int | None = getattr(parameter, "first_new_row", None)
    return row


def validate_vocabulary(folder: Path, tokenizer: PreTrainedTokenizerBase, *, trust_remote_code: bool) -> None:
    """Raise ConfigurationError for a tokenizer whose ids stand for other tokens than those of the model in `folder`."""
    try:
        own = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code).get_vocab()
    except Exception:  # transformers raises many types for a folder without a tokenizer, whose vocabulary is unknown
        return
    other = tokenizer.get_vocab()
    shared = sum(other.get(token) == token_id for token, token_id in own.items())
    if shared < MINIMUM_SHARED_VOCABULARY * len(own):
        raise ConfigurationError(
            f"spec.model.tokenizer: only {shared:,} of the model's {len(own):,} tokens have the same id in this tokenizer, so "
            "the pretrained embeddings would stand for other tokens: remove model.tokenizer, name an extension of the model's "
            "own tokenizer, or set initialization: Scratch"
        )


def _vocabulary_parameters(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    head: Any = model.get_output_embeddings()
    parameters = [model.get_input_embeddings().weight]
    if head is not None:
        parameters += head.parameters()
    return parameters
