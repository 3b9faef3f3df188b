"""Collates samples into one micro-batch of tensors, in the layout with which the model separates packed documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import torch

from finetune_trainer.data.loading.dataset import LENGTHS, TOKENS, Sample, Tokens, document_lengths

IGNORE_INDEX = -100
PAD_TO_MULTIPLE_OF = 8  # GPUs are fastest with such lengths

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
    """How a model separates the documents of a packed sequence; `models/packing_support.py` detects it."""

    POSITIONS = "positions"
    """position_ids restart at each document; transformers builds the block-diagonal mask from them (eager and SDPA)."""
    MASK = "mask"
    """We pass a mask [B, 1, T, T], for families such as OPT that ignore the positions when they build theirs."""
    FLAT = "flat"
    """position_ids restart, and all sequences form one row: flash attention detects documents only in a batch of one row, and
    needs no padding between sequences."""


class Layout(NamedTuple):
    """The form of a batch; `packed_as` is None if each sequence holds one document."""

    packed_as: PackedAs | None = None
    dtype: torch.dtype = torch.float32
    training: bool = False
    """Whether the batch is trained on; evaluation samples are not augmented."""


def collate(
    samples: Sequence[Sample], pad_id: int, layout: Layout, *, labels: Sequence[Tokens] | None = None, causal: bool = True
) -> Batch:
    """A micro-batch of B sequences, padded to a multiple of 8 tokens that holds the longest.

    input_ids [B, T] int64; labels [B, T] if they are given, one for each token, and -100 on padding; position_ids [B, T] for
    packed sequences; attention_mask for others [B, T], or with PackedAs.MASK [B, 1, T, T], to be added to the scores. Padding
    of packed sequences is a document of its own. Without samples the batch is one row without labels, since a rank without
    work must still take part in collectives.
    """
    if layout.packed_as is PackedAs.FLAT and samples:
        labels = labels and [np.concatenate(labels)]
        samples = [_concatenate(samples)]
    longest = max((len(sample[TOKENS]) for sample in samples), default=1)
    shape = (max(len(samples), 1), padded_length(longest))
    input_ids = np.full(shape, pad_id, np.int64)
    targets = np.full(shape, IGNORE_INDEX, np.int64)
    positions = np.zeros(shape, np.int64)
    attention_mask = np.zeros(shape, np.int64)
    attention_mask[:, 0] = 1  # a row that attends to nothing would give NaN
    for index, sample in enumerate(samples):
        count = len(sample[TOKENS])
        input_ids[index, :count] = sample[TOKENS]
        if labels is not None:
            targets[index, :count] = labels[index]
        positions[index, :count] = np.arange(count) - np.repeat(document_starts(sample), document_lengths(sample))
        positions[index, count:] = np.arange(shape[1] - count)
        attention_mask[index, :count] = 1
    batch = Batch({TOKENS: torch.from_numpy(input_ids)})
    if labels is not None:
        batch.targets["labels"] = torch.from_numpy(targets)
    if layout.packed_as is None:
        batch.inputs["attention_mask"] = torch.from_numpy(attention_mask)
        return batch
    batch.inputs["position_ids"] = torch.from_numpy(positions)
    if layout.packed_as is PackedAs.MASK:
        batch.inputs["attention_mask"] = block_mask(batch.inputs["position_ids"], layout.dtype, causal=causal)
    return batch


def _concatenate(samples: Sequence[Sample]) -> Sample:
    return {
        TOKENS: np.concatenate([sample[TOKENS] for sample in samples]),
        LENGTHS: np.concatenate([document_lengths(sample) for sample in samples]),
    }


def padded_length(length: int) -> int:
    """The length of a batch that holds `length` tokens a row."""
    return -(-length // PAD_TO_MULTIPLE_OF) * PAD_TO_MULTIPLE_OF


def pad_to_shape(values: Sequence[Tokens], shape: Sequence[int], fill: int = 0) -> torch.Tensor:
    """The values of each sample as a row of an int64 tensor of this shape, filled on the right."""
    padded = np.full(tuple(shape), fill, np.int64)
    for row, numbers in zip(padded, values, strict=False):  # a batch without samples has one row
        row[: len(numbers)] = numbers
    return torch.from_numpy(padded)


def document_starts(sample: Sample) -> Tokens:
    """The index of the first token of each document."""
    lengths = document_lengths(sample)
    starts: Tokens = np.cumsum(lengths) - lengths
    return starts


def block_mask(positions: torch.Tensor, dtype: torch.dtype, *, causal: bool) -> torch.Tensor:
    """The mask [B, 1, T, T] to add to attention scores, so that each token attends to its own document only.

    `positions` [B, T] restart at 0 with each document. If `causal`, a token attends to no later one.
    """
    documents = (positions == 0).cumsum(-1)
    allowed = documents[:, :, None] == documents[:, None, :]
    if causal:
        allowed = allowed.tril()
    allowed = allowed[:, None]
    return torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
