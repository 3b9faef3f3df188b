"""Small models of the same architecture as a large one, for experiments whose result depends on the architecture alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

HEADS, HEAD_SIZE = 4, 8
WIDTH = HEADS * HEAD_SIZE
VOCABULARY = 64
EXPERTS = 16
MAX_PARAMETERS = 50_000_000
_FEED_FORWARD_FIELDS = (
    "intermediate_size", "n_inner", "d_ff", "d_inner", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim",
    "ffn_hidden_size", "moe_intermediate_size", "shared_expert_intermediate_size",
)  # fmt: skip
_EXPERT_FIELDS = ("num_experts", "num_local_experts", "n_routed_experts")


def create_small_model(create: Callable[..., PreTrainedModel], config: Any, attention: str | None) -> PreTrainedModel | None:
    """A model in float32 on the CPU, with random weights, and with the layers and switches of `config` but narrow ones.

    `create` is the `from_config` of a class of transformers, `attention` the attention implementation. None if the architecture
    cannot be made narrow. Changes neither the configuration nor the random state.
    """
    narrow = _narrow(config)
    try:
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in create(narrow).parameters())
        if size > MAX_PARAMETERS:
            return None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = create(narrow, dtype=torch.float32, attn_implementation=attention)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception:  # configurations reject sizes in many ways
        return None
    return model.eval()


def _narrow(config: Any) -> Any:
    """A copy of a configuration with few tokens and heads, and with narrow hidden states and feed-forward layers."""
    narrow = copy.deepcopy(config)
    text = narrow.get_text_config()
    old_width, old_heads = getattr(text, "hidden_size", None), getattr(text, "num_attention_heads", None)
    for field, value in text.to_dict().items():
        if field.endswith("token_id"):
            setattr(text, field, _small_token_id(value))
        elif type(value) is not int:
            continue
        elif field in _EXPERT_FIELDS:
            setattr(text, field, min(value, EXPERTS))
        elif field in _FEED_FORWARD_FIELDS:
            setattr(text, field, 2 * WIDTH)
        elif field.endswith("head_dim"):
            setattr(text, field, HEAD_SIZE)
        elif value == old_width and "vocab" not in field and "position" not in field:
            setattr(text, field, WIDTH)
    if old_heads is not None:
        groups = max(1, old_heads // (getattr(text, "num_key_value_heads", None) or old_heads))
        text.num_attention_heads = HEADS
        if getattr(text, "num_key_value_heads", None) is not None:
            text.num_key_value_heads = max(1, HEADS // groups)
    text.vocab_size = VOCABULARY
    return narrow


def _small_token_id(value: Any) -> Any:
    if isinstance(value, list):
        return [_small_token_id(token_id) for token_id in value]
    return min(value, VOCABULARY - 1) if type(value) is int else value
