"""Counts the tokens that a run learns from, and the special tokens among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedTokenizerBase

from finetune_trainer.huggingface.special_tokens import marker_ids
from finetune_trainer.objectives.description import Block
from finetune_trainer.preview.report import CollatedTokens, SpecialToken

TOKEN_ROLES = ("bos", "eos", "pad", "unk", "sep", "cls", "mask")


def count_tokens(sequences: Iterable[list[Block]], tokenizer: Any) -> CollatedTokens | None:
    """The tokens of sequences, each given as its blocks; None for an image processor."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return None
    seen: Counter[int] = Counter()
    predicted: Counter[int] = Counter()
    sequence_count = trained = 0
    for blocks in sequences:
        sequence_count += 1
        for block in blocks:
            for segment in block.segments:
                seen.update(segment.tokens)
                predicted.update(segment.predicted_tokens)
                trained += len(segment.tokens) if segment.trained else 0
    return CollatedTokens(
        sequences=sequence_count,
        tokens=seen.total(),
        trained=trained,
        special_tokens=_special_tokens(tokenizer, seen, predicted),
    )


def _special_tokens(tokenizer: PreTrainedTokenizerBase, seen: Counter[int], predicted: Counter[int]) -> list[SpecialToken]:
    """The special and the added tokens that have a role or were seen."""
    roles: dict[int, list[str]] = {}
    for role in TOKEN_ROLES:
        token_id = getattr(tokenizer, f"{role}_token_id")
        if token_id is not None:
            roles.setdefault(token_id, []).append(role)
    found = sorted(token_id for token_id in marker_ids(tokenizer) if token_id in seen or token_id in predicted)
    tokens = []
    for token_id in dict.fromkeys([*roles, *found]):
        token = str(tokenizer.convert_ids_to_tokens(token_id))
        tokens.append(
            SpecialToken(
                token=token, id=token_id, names=roles.get(token_id, []), count=seen[token_id], trained=predicted[token_id]
            )
        )
    return tokens
