"""Special tokens of tokenizers: padding, and the sentinels of span corruption."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

# Names that model families have for a token that does not occur in texts, in the order of preference.
PADDING_TOKENS = ("<|padding|>", "<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>", "<unk>")


def count_token_ids(tokenizer: PreTrainedTokenizerBase) -> int:
    """The number of embeddings that a tokenizer needs: more than it has tokens if its vocabulary has gaps."""
    largest_id: int = max(tokenizer.get_vocab().values())
    return max(largest_id + 1, len(tokenizer))


def marker_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The ids of special tokens and of added tokens, some of which end a turn although they are not called special."""
    return {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}


def sentinel_token(number: int) -> str:
    """The token that replaces a masked span of a text, numbered from 0; the names are T5's."""
    return f"<extra_id_{number}>"


def add_stop_token(model: Any, token_id: int) -> bool:
    """Make the model, and its export, stop generation at a token too; returns whether it did not before."""
    stops = model.generation_config.eos_token_id
    stops = [] if stops is None else [stops] if isinstance(stops, int) else list(stops)
    if token_id in stops:
        return False
    model.generation_config.eos_token_id = [*stops, token_id]
    return True


def set_padding_token(tokenizer: PreTrainedTokenizerBase, embedding_count: int) -> None:
    """Give a tokenizer a padding token other than its end-of-text token, if the model has an embedding for one.

    It is a token of the vocabulary, or else a new one if the model has a spare embedding, so that the embedding matrix keeps
    its size. Without either (GPT-2) padding is the end-of-text token; labels are masked by position and not by token, so that
    the model still learns to end a text.
    """
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    vocabulary = tokenizer.get_vocab()
    for token in PADDING_TOKENS:
        if token in vocabulary and vocabulary[token] != tokenizer.eos_token_id:
            tokenizer.pad_token = token
            return
    if max(vocabulary.values()) + 1 < embedding_count:
        tokenizer.add_special_tokens({"pad_token": PADDING_TOKENS[0]})
    else:
        tokenizer.pad_token = tokenizer.eos_token
