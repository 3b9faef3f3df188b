"""Prepared samples on disk, memory-mapped, so that all ranks of a machine share one copy in the page cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

Tokens = NDArray[Any]

TOKENS, LENGTHS = "input_ids", "seq_lengths"


Sample = Mapping[str, Tokens]
"""One example, or several packed into a sequence: each field's numbers [n], or [] for a field of one number."""


def document_lengths(sample: Sample) -> Tokens:
    """The number of tokens of each document in the sample."""
    return sample[LENGTHS] if LENGTHS in sample else np.array([len(sample[TOKENS])], np.int32)


class ArrowDataset(Sequence[Sample]):
    """The samples of one or more Arrow stream files with the same fields.

    Packed samples have the field LENGTHS in addition to the fields of their examples.
    """

    def __init__(self, *paths: Path) -> None:
        table = pyarrow.concat_tables([_map_table(path) for path in paths])
        self._count: int = table.num_rows
        self._fields: dict[str, _ListColumn | _NumberColumn] = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            is_list = pyarrow.types.is_list(column.type)
            self._fields[name] = _ListColumn(column) if is_list else _NumberColumn(column)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]  # slices are not needed
        if not 0 <= index < self._count:
            raise IndexError(index)
        return {name: field[index] for name, field in self._fields.items()}

    @property
    def longest(self) -> int:
        """Tokens of the longest sample; 0 for samples without tokens."""
        tokens = self._fields.get(TOKENS)
        return tokens.longest if isinstance(tokens, _ListColumn) else 0

    def digest(self) -> str:
        """SHA-256 of all samples; equal on all machines that prepared the same samples."""
        return hashlib.sha256(b"".join(self._fields[name].digest() for name in sorted(self._fields))).hexdigest()


def _map_table(path: Path) -> pyarrow.Table:
    with pyarrow.memory_map(str(path)) as file:
        # The arrays keep the mapping alive; only fields of single numbers are copied.
        return pyarrow.ipc.open_stream(file).read_all()


class _NumberColumn:
    """A column of single numbers."""

    def __init__(self, column: pyarrow.ChunkedArray) -> None:
        self._values = column.to_numpy()

    def digest(self) -> bytes:
        return hashlib.sha256(self._values.astype("<f8").tobytes()).digest()

    def __getitem__(self, index: int) -> Tokens:
        return self._values[index]  # type: ignore[no-any-return]


class _ListColumn:
    """Random access to a chunked list column in microseconds, without Python objects for the numbers."""

    def __init__(self, column: pyarrow.ChunkedArray) -> None:
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])
        self._offsets = [chunk.offsets.to_numpy() for chunk in chunks]
        self._values = [chunk.values.to_numpy() for chunk in chunks]

    @property
    def longest(self) -> int:
        return int(max(np.diff(offsets).max() for offsets in self._offsets))

    def digest(self) -> bytes:
        """The digest of the numbers and of the list lengths, independent of the chunks."""
        numbers, lengths = hashlib.sha256(), hashlib.sha256()
        for offsets, values in zip(self._offsets, self._values, strict=True):
            numbers.update(values[offsets[0] : offsets[-1]].astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
            lengths.update(np.diff(offsets).astype("<i4", copy=False).tobytes())
        return numbers.digest() + lengths.digest()

    def __getitem__(self, index: int) -> Tokens:
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        offsets, position = self._offsets[chunk], index - self._starts[chunk]
        values: Tokens = self._values[chunk][offsets[position] : offsets[position + 1]]
        return values
