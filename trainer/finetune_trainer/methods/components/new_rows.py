"""Trains the embeddings of tokens that were added to a pretrained model, also where the method freezes all embeddings.

Their rows would otherwise keep the random values that they start with. The gradient of all other rows is zero, and without
weight decay AdamW leaves a weight unchanged whose gradients are all zero.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from finetune_trainer.distributed.partitioned import whole_parameters
from finetune_trainer.models.embeddings import first_new_row


def train_new_rows(model: Any) -> None:
    """Train the new rows of all frozen embeddings and heads, and keep their starting values for `disable_adapter`."""
    starts: dict[torch.nn.Parameter, torch.Tensor] = {}
    for parameter in model.parameters():
        first = first_new_row(parameter)
        if first is not None and not parameter.requires_grad:
            parameter.requires_grad_(True)
            parameter.frozen_rows = first
            parameter.register_hook(partial(_mask_frozen_rows, first))
            starts[parameter] = parameter.detach()[first:].clone()
    if starts and hasattr(model, "disable_adapter"):
        model.disable_adapter = partial(_starting_model, model.disable_adapter, starts)


def frozen_rows(parameter: torch.Tensor) -> int:
    """The number of rows of a trained parameter that stay as they are."""
    return int(getattr(parameter, "frozen_rows", 0))


def _mask_frozen_rows(count: int, gradient: torch.Tensor) -> torch.Tensor:
    masked = gradient.clone()
    masked[:count] = 0
    return masked


@contextlib.contextmanager
def _starting_model(disable_adapter: Any, starts: dict[torch.nn.Parameter, torch.Tensor]) -> Iterator[None]:
    """Within the context the model computes as before the training; losses that compare with it use this."""
    with disable_adapter(), _rows_replaced(starts):
        yield


@contextlib.contextmanager
def _rows_replaced(rows: dict[torch.nn.Parameter, torch.Tensor]) -> Iterator[None]:
    trained = _exchange(rows)
    try:
        yield
    finally:
        _exchange(trained)


def _exchange(rows: dict[torch.nn.Parameter, torch.Tensor]) -> dict[torch.nn.Parameter, torch.Tensor]:
    """Write the last rows of each parameter, and return those that were there."""
    before = {}
    with whole_parameters(list(rows), writes=True):
        for parameter, values in rows.items():
            before[parameter] = parameter.data[-len(values) :].clone()
            parameter.data[-len(values) :] = values.to(parameter.data)
    return before
