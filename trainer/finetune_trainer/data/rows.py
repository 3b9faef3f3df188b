"""Prepared rows as they lie on the disk: memory-mapped, so that all ranks of a machine share one copy in the page cache."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
from numpy.typing import NDArray

Tokens = NDArray[np.signedinteger]

TOKENS, LENGTHS = "input_ids", "seq_lengths"


class Row(NamedTuple):
    """Tokens [T] of one or several documents, one after the other, and how long each document is."""

    tokens: Tokens
    lengths: Tokens


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
        return Row(tokens, self._lengths[index] if self._lengths else np.array([len(tokens)], np.int32))

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return self._tokens.longest

    def digest(self) -> str:
        """SHA-256 over all rows: the same wherever the same rows were prepared."""
        parts = self._tokens.digest() + (self._lengths.digest() if self._lengths else b"")
        return hashlib.sha256(parts).hexdigest()


class _Lists:
    """Random access to a chunked list column in microseconds, without Python objects for the numbers."""

    def __init__(self, column: pyarrow.ChunkedArray) -> None:
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])
        self._offsets = [chunk.offsets.to_numpy() for chunk in chunks]
        self._values = [chunk.values.to_numpy() for chunk in chunks]

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def longest(self) -> int:
        return int(max(np.diff(offsets).max() for offsets in self._offsets))

    def digest(self) -> bytes:
        """Of the numbers and of the lists' lengths, whatever the chunks."""
        numbers, lengths = hashlib.sha256(), hashlib.sha256()
        for offsets, values in zip(self._offsets, self._values, strict=True):
            numbers.update(values[offsets[0] : offsets[-1]].astype("<i4", copy=False).tobytes())
            lengths.update(np.diff(offsets).astype("<i4", copy=False).tobytes())
        return numbers.digest() + lengths.digest()

    def __getitem__(self, index: int) -> Tokens:
        if not 0 <= index < len(self):
            raise IndexError(index)
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        offsets, place = self._offsets[chunk], index - self._starts[chunk]
        values: Tokens = self._values[chunk][offsets[place] : offsets[place + 1]]
        return values
