"""Rows that are the same, word for word: found by 64 bits of a hash, so that ten million rows take 80 MB."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Digests = NDArray[np.uint64]
Places = NDArray[np.bool_]


def repeated(digests: Digests) -> Places:
    """Which rows repeat an earlier one."""
    marks = np.ones(len(digests), np.bool_)
    marks[np.unique(digests, return_index=True)[1]] = False
    return marks


def among(digests: Digests, others: Digests) -> Places:
    """Which rows are among the others."""
    return np.isin(digests, others)
