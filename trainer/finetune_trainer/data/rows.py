"""Prepared rows as they lie on the disk: memory-mapped, so that all ranks of a machine share one copy in the page cache."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
from numpy.typing import NDArray

Tokens = NDArray[np.int32]

TOKENS, LENGTHS = "input_ids", "seq_lengths"


class Row(NamedTuple):
    """Tokens [T] of one or several documents, one after the other, and how long each document is."""

    tokens: Tokens
    lengths: NDArray[np.int64]


class Rows(Sequence[Row]):
    """The rows of an Arrow stream file with a column of tokens and, for packed rows, one of document lengths."""

    def __init__(self, path: Path) -> None:
        with pyarrow.memory_map(str(path)) as file:
            # The arrays keep the mapping alive; nothing is copied.
            table = pyarrow.ipc.open_stream(file).read_all()
        self._tokens = _Lists(table.column(TOKENS))
        self._lengths = _Lists(table.column(LENGTHS)) if LENGTHS in table.column_names else None

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]  # slices are not needed
        tokens = self._tokens[index]
        return Row(tokens, self._lengths[index] if self._lengths else np.array([len(tokens)]))

    def digest(self) -> str:
        """SHA-256 over all rows: the same wherever the same rows were prepared."""
        digest = hashlib.sha256()
        for column in (self._tokens, self._lengths):
            for index in range(len(column) if column else 0):
                assert column is not None
                digest.update(len(column[index]).to_bytes(8, "little") + column[index].astype("<i4").tobytes())
        return digest.hexdigest()


class _Lists:
    """Random access to a chunked list column in microseconds, without Python objects for the numbers."""

    def __init__(self, column: pyarrow.ChunkedArray) -> None:
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])
        self._offsets = [chunk.offsets.to_numpy() for chunk in chunks]
        self._values = [chunk.values.to_numpy() for chunk in chunks]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Tokens:
        if not 0 <= index < len(self):
            raise IndexError(index)
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        offsets, place = self._offsets[chunk], index - self._starts[chunk]
        values: Tokens = self._values[chunk][offsets[place] : offsets[place + 1]]
        return values
