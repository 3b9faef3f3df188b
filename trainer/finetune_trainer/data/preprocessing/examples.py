"""From records to examples, batch by batch: what an objective makes of a record, and what became of those it could not use."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import pyarrow

from finetune_trainer.data.loading.dataset import TOKENS, Tokens
from finetune_trainer.data.records.row import Row, texts
from finetune_trainer.data.sources.stream import Split, SplitRow

Overlong = Literal["Split", "Truncate", "Drop"]

# A batch ends at this limit or the encoder's own: enough to use all cores, and little enough to hold in memory.
BATCH_CHARACTERS = 2_000_000


class EncodeStatus(StrEnum):
    """What became of a record."""

    KEPT = "kept"
    EMPTY = "empty"
    """Nothing can be learnt from it: it has no text, or all of its labels are hidden."""
    SPLIT = "split"
    TRUNCATED = "truncated"
    DROPPED = "dropped"
    MASKED = "masked"


class EncodedRow(NamedTuple):
    """The examples of one record, each a value for every field: a list of numbers or one number."""

    examples: list[Mapping[str, Any]]
    status: EncodeStatus


class Encoder(Protocol):
    """What preparing asks of an objective."""

    fields: Mapping[str, pyarrow.DataType]
    """The fields of an example and their Arrow types, lists of numbers or numbers."""
    processor: Any
    """The model's tokenizer or image processor."""
    batch_size: int
    """Records to be encoded and held in memory at once."""

    @property
    def fingerprint(self) -> Any:
        """What changes when the examples of a record may; JSON."""
        ...

    def collect_statistics(self, rows: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """What must be known of all training records before the first is encoded, such as the set of labels; JSON."""
        ...

    def set_statistics(self, statistics: dict[str, Any]) -> None:
        """Takes note of what a collect_statistics found."""
        ...

    def encode(self, rows: Sequence[Row]) -> Iterable[EncodedRow]:
        """What becomes of each record, in their order; raises DataError for one that cannot be used."""
        ...


@dataclass
class EncodeCounts:
    """What became of the records."""

    rows: int = 0
    statuses: Counter[EncodeStatus] = field(default_factory=Counter)
    firsts: dict[EncodeStatus, str] = field(default_factory=dict)
    """Where the first record of each status comes from."""
    lengths: array[int] = field(default_factory=partial(array, "i"))
    """Tokens of each example."""
    groups: array[int] = field(default_factory=partial(array, "i"))
    """The group of each example."""
    examples: int = 0

    @property
    def tokens(self) -> int:
        """Of all examples."""
        return sum(self.lengths)

    def note(self, record: Row, status: EncodeStatus) -> None:
        """One record more."""
        self.rows += 1
        self.statuses[status] += 1
        self.firsts.setdefault(status, record.origin)


def split_or_truncate(
    tokens: Tokens, max_length: int, overlong: Overlong, overlap: int = 0
) -> tuple[list[Tokens], EncodeStatus]:
    """The pieces of one document [any length], each of at most `max_length` tokens and more than `overlap`.

    Where tokens are predicted from those before them, the pieces of a split document overlap by one: a piece's first token is
    not predicted within it, and so every token of the document but the first is predicted exactly once.
    """
    if len(tokens) <= overlap:
        return [], EncodeStatus.EMPTY
    if len(tokens) <= max_length:
        return [tokens], EncodeStatus.KEPT
    match overlong:
        case "Drop":
            return [], EncodeStatus.DROPPED
        case "Truncate":
            return [tokens[:max_length]], EncodeStatus.TRUNCATED
        case "Split":
            starts = range(0, len(tokens) - overlap, max_length - overlap)
            return [tokens[start : start + max_length] for start in starts], EncodeStatus.SPLIT


class ExampleWriter:
    """Writes examples to an Arrow stream file, so that memory holds one batch and never the whole data."""

    def __init__(self, path: Path, fields: Mapping[str, pyarrow.DataType]) -> None:
        self.path = path
        self.counts = EncodeCounts()
        self._schema = pyarrow.schema(list(fields.items()))
        self._sink = pyarrow.OSFile(str(path), "wb")
        self._writer = pyarrow.ipc.new_stream(self._sink, self._schema)

    def write(self, examples: Sequence[Mapping[str, Any]]) -> None:
        """Append the examples, in order."""
        if not examples:
            return
        columns = [_column([example[field.name] for example in examples], field.type) for field in self._schema]
        self._writer.write_batch(pyarrow.record_batch(columns, schema=self._schema))
        self.counts.examples += len(examples)
        self.counts.lengths.extend(len(example[TOKENS]) for example in examples if TOKENS in example)

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
        self._sink.close()


def write_examples(
    records: Iterable[SplitRow], encoder: Encoder, writers: Mapping[Split, ExampleWriter], group: Callable[[SplitRow], int],
    done: Callable[[int], None],
) -> None:  # fmt: skip
    """Encode and write all records, each to the writer of its side, and note the `group` of each record's examples.

    `done` is told the number of records of each batch.
    """
    for batch in batches(records, encoder.batch_size):
        # By sides, so that an encoder which mixes records mixes none that is held out with those to learn from.
        for side, writer in writers.items():
            own = [placed for placed in batch if placed.split == side]
            examples: list[Mapping[str, Any]] = []
            for placed, encoded in zip(own, encoder.encode([one.row for one in own]) if own else (), strict=True):
                if not placed.is_copy:
                    writer.counts.note(placed.row, encoded.status)
                writer.counts.groups.extend([group(placed)] * len(encoded.examples))
                examples.extend(encoded.examples)
            writer.write(examples)
        done(len(batch))


def _column(values: Sequence[Any], kind: pyarrow.DataType) -> pyarrow.Array:
    if not pyarrow.types.is_list(kind):
        return pyarrow.array(values, kind)
    offsets = np.cumsum([0, *(len(value) for value in values)], dtype=np.int32)
    numbers = np.concatenate(values).astype(kind.value_type.to_pandas_dtype(), copy=False)
    return pyarrow.ListArray.from_arrays(offsets, numbers)


def batches(records: Iterable[SplitRow], most: int) -> Iterator[list[SplitRow]]:
    """Records of one source each, as those of another may have other columns."""
    batch: list[SplitRow] = []
    characters = 0
    for placed in records:
        full = len(batch) == most or characters >= BATCH_CHARACTERS
        if batch and (full or (placed.section, placed.source) != (batch[0].section, batch[0].source)):
            yield batch
            batch, characters = [], 0
        batch.append(placed)
        characters += sum(map(len, texts(placed.row)))
    if batch:
        yield batch
