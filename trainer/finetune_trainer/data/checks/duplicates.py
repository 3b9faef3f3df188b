"""Rows that repeat an earlier row word for word: found by 64-bit digests, so that ten million rows take 80 MB."""

from __future__ import annotations

import numpy as np

from finetune_trainer.data.checks.base import RowCheck
from finetune_trainer.data.checks.statistics import Digests, RowMask, RowStatistics
from finetune_trainer.data.sources.stream import Split


def repeated(digests: Digests) -> RowMask:
    """Marks the digests that repeat an earlier one."""
    mask = np.ones(len(digests), np.bool_)
    mask[np.unique(digests, return_index=True)[1]] = False
    return mask


def find(statistics: RowStatistics, split: Split) -> RowMask:
    """Marks rows that repeat an earlier one of their split. Replay rows may repeat new ones."""
    digests = statistics.row_digests
    return statistics.mask_within(split, lambda rows: repeated(digests[rows]))


DUPLICATES = RowCheck(
    name="duplicates",
    description="that repeat an earlier one",
    advice="remove them, or set data.checks.duplicates: Drop",
    policy=lambda checks: checks.duplicates,
    find=find,
)
