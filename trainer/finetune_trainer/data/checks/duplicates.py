"""Rows that are the same, word for word: found by 64 bits of a hash, so that ten million rows take 80 MB."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.data.records.row import Row, texts

Digests = NDArray[np.uint64]
Places = NDArray[np.bool_]


def digest(text: str) -> int:
    """64 bits of a hash, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def of_value(value: Any) -> int:
    """The digest of one value of a record."""
    return digest(value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str))


def of_row(record: Row) -> int:
    """The digest of all that the objective reads of a row; the same path in another folder is another image."""
    values: Mapping[str, Any] = record.values
    folder = [] if record.folder is None else [str(record.folder)]
    return digest(json.dumps([values[role] for role in sorted(values)] + folder, sort_keys=True, default=str))


def of_texts(record: Row) -> int:
    """The digest of a row's texts, whatever its labels; of a row without texts, that of the row."""
    found = list(texts(record))
    return digest(json.dumps(found)) if found else of_row(record)


def repeated(digests: Digests) -> Places:
    """Which rows repeat an earlier one."""
    marks = np.ones(len(digests), np.bool_)
    marks[np.unique(digests, return_index=True)[1]] = False
    return marks


def among(digests: Digests, others: Digests) -> Places:
    """Which rows are among the others."""
    return np.isin(digests, others)
