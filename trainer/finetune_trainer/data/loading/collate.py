"""Rows become one micro-batch of tensors, in the form in which the model keeps packed documents apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import torch

from finetune_trainer.data.loading.dataset import LENGTHS, TOKENS, Sample, Tokens, document_lengths

IGNORE_INDEX = -100
MULTIPLE = 8  # GPUs compute fastest on such lengths

Tensors = dict[str, torch.Tensor]


@dataclass
class Batch:
    """A micro-batch of tensors."""

    inputs: Tensors = field(default_factory=dict)
    """The arguments of the model's forward method."""
    targets: Tensors = field(default_factory=dict)
    """What the loss and the metrics need besides the model's outputs."""
    tasks: Mapping[str, Batch] = field(default_factory=dict)
    """With several tasks, the batch of each."""

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """The batch with each tensor changed."""
        inputs = {name: change(tensor) for name, tensor in self.inputs.items()}
        targets = {name: change(tensor) for name, tensor in self.targets.items()}
        return Batch(inputs, targets, {name: batch.map(change) for name, batch in self.tasks.items()})

    def to(self, device: torch.device) -> Batch:
        """The batch on the device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch in pinned host memory, from which copies to the GPU are asynchronous."""
        return self.map(lambda tensor: tensor.pin_memory())


class PackedAs(StrEnum):
    """How a model is told where one document of a row ends and the next begins; see `models/packing_support.py`."""

    POSITIONS = "positions"
    """By position_ids that start anew: transformers then builds the block-diagonal mask (eager and SDPA)."""
    MASK = "mask"
    """By a mask [B, 1, T, T] of our own, for families that ignore the positions when they build theirs, such as OPT."""
    FLAT = "flat"
    """By position_ids, with all rows in one: flash attention finds documents in a batch of one row only, and needs no padding
    between rows."""


class Layout(NamedTuple):
    """In which form a model takes its rows; `packed_as` is None where each holds one document."""

    packed_as: PackedAs | None = None
    dtype: torch.dtype = torch.float32
    training: bool = False
    """Whether the rows are to learn from: those of an evaluation are shown as they are."""


def collate(
    rows: Sequence[Sample], pad_id: int, layout: Layout, *, labels: Sequence[Tokens] | None = None, causal: bool = True
) -> Batch:
    """A micro-batch of B rows, padded to the longest and on to a multiple of 8.

    input_ids [B, T] int64; labels [B, T] where they are given, one for each token, and -100 on padding; position_ids [B, T]
    for packed rows; attention_mask for others [B, T], or with PackedAs.MASK [B, 1, T, T], to be added to the scores. Padding of
    packed rows is a document of its own. No rows at all become one row to learn nothing from: a rank without work must still
    take part in collectives.
    """
    if layout.packed_as is PackedAs.FLAT and rows:
        labels = labels and [np.concatenate(labels)]
        rows = [
            {
                TOKENS: np.concatenate([row[TOKENS] for row in rows]),
                LENGTHS: np.concatenate([document_lengths(r) for r in rows]),
            }
        ]
    longest = max((len(row[TOKENS]) for row in rows), default=1)
    shape = (max(len(rows), 1), padded_length(longest))
    ids = np.full(shape, pad_id, np.int64)
    targets = np.full(shape, IGNORE_INDEX, np.int64)
    positions = np.zeros(shape, np.int64)
    attended = np.zeros(shape, np.int64)
    attended[:, 0] = 1  # a row that attends to nothing would give NaN
    for index, row in enumerate(rows):
        count = len(row[TOKENS])
        ids[index, :count] = row[TOKENS]
        if labels is not None:
            targets[index, :count] = labels[index]
        positions[index, :count] = np.arange(count) - np.repeat(document_starts(row), document_lengths(row))
        positions[index, count:] = np.arange(shape[1] - count)
        attended[index, :count] = 1
    batch = Batch({TOKENS: torch.from_numpy(ids)})
    if labels is not None:
        batch.targets["labels"] = torch.from_numpy(targets)
    if layout.packed_as is None:
        batch.inputs["attention_mask"] = torch.from_numpy(attended)
        return batch
    batch.inputs["position_ids"] = torch.from_numpy(positions)
    if layout.packed_as is PackedAs.MASK:
        batch.inputs["attention_mask"] = block_mask(batch.inputs["position_ids"], layout.dtype, causal=causal)
    return batch


def padded_length(length: int) -> int:
    """The length of which a batch is made that must hold so many tokens."""
    return -(-length // MULTIPLE) * MULTIPLE


def pad_to_shape(values: Sequence[Tokens], shape: Sequence[int], fill: int = 0) -> torch.Tensor:
    """One row of numbers for each row of the batch, filled up at the right; int64 of `shape`."""
    filled = np.full(tuple(shape), fill, np.int64)
    for row, numbers in zip(filled, values, strict=False):  # a batch without rows has one
        row[: len(numbers)] = numbers
    return torch.from_numpy(filled)


def document_starts(row: Sample) -> Tokens:
    """Where each document of the row begins."""
    found = document_lengths(row)
    begins: Tokens = np.cumsum(found) - found
    return begins


def block_mask(positions: torch.Tensor, dtype: torch.dtype, *, causal: bool) -> torch.Tensor:
    """What to add to attention scores [B, 1, T, T], so that each token of `positions` [B, T] sees its own document only.

    If `causal`, no more of it than its past.
    """
    documents = (positions == 0).cumsum(-1)
    seen = documents[:, :, None] == documents[:, None, :]
    seen = (seen.tril() if causal else seen)[:, None]
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
