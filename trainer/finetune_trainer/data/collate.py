"""Rows become one micro-batch of tensors, in the form in which the model keeps packed documents apart."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import torch

from finetune_trainer.data.rows import Row

IGNORED = -100
MULTIPLE = 8  # GPUs compute fastest on such lengths

Batch = dict[str, torch.Tensor]


class PackedAs(StrEnum):
    """How a model is told where one document of a row ends and the next begins; `attention.examine` finds out which."""

    POSITIONS = "positions"
    """By position_ids that start anew: transformers then builds the block-diagonal mask (eager and SDPA)."""
    MASK = "mask"
    """By a mask [B, 1, T, T] of our own, for families that ignore the positions when they build theirs, such as OPT."""
    FLAT = "flat"
    """By position_ids, with all rows in one: flash attention finds documents in a batch of one row only, and needs no padding
    between rows."""


def collate(
    rows: Sequence[Row],
    pad_id: int,
    max_length: int | None = None,
    *,
    packed_as: PackedAs | None = None,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """A micro-batch of B rows, padded to the longest (`max_length` if given) and on to a multiple of 8.

    input_ids [B, T] int64; labels [B, T], which are -100 on padding and on the first token of each document, as another
    document (or nothing) stands before it; position_ids [B, T] for packed rows; attention_mask for others (`packed_as` None)
    [B, T], or with PackedAs.MASK [B, 1, T, T] of `dtype`, to be added to the scores. Padding of packed rows is a document of
    its own. No rows at all become one row to learn nothing from: a rank without work must still take part in collectives.
    """
    if packed_as is PackedAs.FLAT and rows:
        rows = [Row(np.concatenate([row.tokens for row in rows]), np.concatenate([row.lengths for row in rows]))]
    longest = max((len(row.tokens) for row in rows), default=1)
    width = -(-max(longest, max_length or 0 if packed_as is not PackedAs.FLAT else 0) // MULTIPLE) * MULTIPLE
    shape = (max(len(rows), 1), width)
    ids = np.full(shape, pad_id, np.int64)
    labels = np.full(shape, IGNORED, np.int64)
    positions = np.zeros(shape, np.int64)
    attended = np.zeros(shape, np.int64)
    attended[:, 0] = 1  # a row that attends to nothing would give NaN
    for index, row in enumerate(rows):
        count = len(row.tokens)
        ids[index, :count] = labels[index, :count] = row.tokens
        starts = np.cumsum(row.lengths) - row.lengths
        labels[index, starts] = IGNORED
        positions[index, :count] = np.arange(count) - np.repeat(starts, row.lengths)
        positions[index, count:] = np.arange(width - count)
        attended[index, :count] = 1
    batch = {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
    if packed_as is None:
        return batch | {"attention_mask": torch.from_numpy(attended)}
    batch["position_ids"] = torch.from_numpy(positions)
    return batch | ({"attention_mask": block_mask(batch["position_ids"], dtype)} if packed_as is PackedAs.MASK else {})


def block_mask(positions: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What to add to attention scores [B, 1, T, T], so that each token of `positions` [B, T] sees its own document's past."""
    documents = (positions == 0).cumsum(-1)
    seen = (documents[:, :, None] == documents[:, None, :]).tril()[:, None]
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)


def tokens(batch: Batch) -> int:
    """Positions of a batch that are not padding: in each row, those up to the last token that is learnt."""
    learnt = batch["labels"] != IGNORED
    after_last = torch.where(learnt, torch.arange(1, learnt.shape[1] + 1, device=learnt.device), 0).amax(dim=1)
    return int(after_last.sum())


def learnt(batch: Batch) -> int:
    """Tokens of a batch that are learnt from."""
    return int((batch["labels"] != IGNORED).sum())
