"""Chooses the weights that decay: the matrices, without biases, norms and the dynamics of state-space models."""

from __future__ import annotations

import re

import torch

from finetune_trainer.methods.components.new_rows import frozen_rows

_UNDECAYED_NAMES = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)|(?:^|\.)a_log$")
"""In lower case: the names that transformers' Trainer excludes, such as T5's relative_attention_bias, and Mamba's A_log, which
its authors exclude (Gu & Dao 2023, arXiv:2312.00752)."""


def decays(name: str, parameter: torch.nn.Parameter) -> bool:
    """Whether weight decay applies to a parameter of this name.

    transformers' Trainer decides by names alone, so that it also decays a few vectors: Mamba's final norm and its D.
    """
    return _is_matrix(name, parameter) and not _UNDECAYED_NAMES.search(name.lower()) and not frozen_rows(parameter)


def _is_matrix(name: str, parameter: torch.nn.Parameter) -> bool:
    """Whether the whole parameter has more than one dimension, also if ZeRO-3 has partitioned it."""
    # IA3's scales are vectors that start at 1, but peft stores them as matrices of one row or column.
    return len(getattr(parameter, "ds_shape", parameter.shape)) > 1 and ".ia3_l." not in name
