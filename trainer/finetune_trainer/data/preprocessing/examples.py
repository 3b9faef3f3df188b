"""Encoding rows to examples, batch by batch: the interface of encoders, and the writer of examples."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import pyarrow

from finetune_trainer.data.loading.dataset import TOKENS, Tokens
from finetune_trainer.data.loading.origins import OriginWriter, example_digest
from finetune_trainer.data.records.row import Row
from finetune_trainer.data.sources.stream import Split, SplitRow, batches

Overlong = Literal["Split", "Truncate", "Drop"]
FIRST_ROWS = 50


class EncodeStatus(StrEnum):
    """The result of encoding a row."""

    KEPT = "kept"
    EMPTY = "empty"
    """It has no text, or all of its labels are ignored, so that there is nothing to learn."""
    SPLIT = "split"
    TRUNCATED = "truncated"
    DROPPED = "dropped"
    MASKED = "masked"
    """Truncation or a weight of 0 left no token to learn."""
    UNLABELED = "unlabeled"
    """Its label is missing, or one that means "no label"."""
    UNANSWERED = "unanswered"
    """It is a conversation without an answer, or with an empty one."""
    IDENTICAL = "identical"
    """Both answers of its pair are the same."""


class EncodeIssue(StrEnum):
    """A problem of a row, whatever became of it."""

    INCONSISTENT_TAGS = "inconsistent tags"
    """Its tags break the rules of their scheme."""
    LONG_TEXT = "long text"
    """It is longer than a sequence."""
    LONG_QUESTION = "long question"
    """Its question is longer than half of a sequence."""
    LONG_TARGET = "long target"
    """Its target is longer than the longest that the document allows."""
    LOST_ANSWER = "lost answer"
    """Its answer is completely in no window of its context."""
    UNTOKENIZED_WORDS = "untokenized words"
    """Some of its words have no tokens, and so no tags."""
    OPEN_END = "open end"
    """Its conversation ends with messages that are not answered."""
    UNWRITTEN_NAMES = "unwritten names"
    """Its messages name their speakers, and the chat template does not write the names."""


LENGTH_ISSUES = (EncodeIssue.LONG_TEXT, EncodeIssue.LONG_QUESTION, EncodeIssue.LONG_TARGET)


class EncodedRow(NamedTuple):
    """The examples of one row; each has a value for every field: a list of numbers or one number."""

    examples: list[Mapping[str, Any]]
    status: EncodeStatus
    labels: Sequence[str] = ()
    """The labels of a classification."""
    issues: Sequence[EncodeIssue] = ()
    """A row that was truncated or dropped is too long itself, unless an issue says what else is too long."""


class Encoder(Protocol):
    """The part of an objective that preprocessing calls."""

    fields: Mapping[str, pyarrow.DataType]
    """The fields of an example and their Arrow types: lists of numbers, or numbers."""
    processor: Any
    """The model's tokenizer or image processor."""
    batch_size: int
    """Rows to encode and hold in memory at a time."""

    @property
    def fingerprint(self) -> Any:
        """A JSON value that changes when the examples of a row may change."""
        ...

    def collect_statistics(self, rows: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """Statistics of all training rows that encoding needs, such as the set of labels; JSON."""
        ...

    def set_statistics(self, statistics: dict[str, Any]) -> None:
        """Receive the result of `collect_statistics`, from this run or an earlier one."""
        ...

    def encode(self, rows: Sequence[Row]) -> Iterable[EncodedRow]:
        """Encode the rows in order; raises DataError for a row that cannot be used."""
        ...


class FirstRow(NamedTuple):
    """One of the first rows of its source that gave an example."""

    source: int
    """The index of its source in `data.train`."""
    origin: str
    example: int
    """The index of its first example."""
    digest: str
    """The digest of this example, by which it is found in a packed sequence."""


@dataclass
class EncodeCounts:
    """Statistics of the encoded rows of one split."""

    rows: int = 0
    statuses: Counter[EncodeStatus | EncodeIssue] = field(default_factory=Counter)
    """Rows with each status, and with each issue."""
    first_origins: dict[EncodeStatus | EncodeIssue, str] = field(default_factory=dict)
    """The origin of the first row with each status or issue."""
    lengths: array[int] = field(default_factory=partial(array, "i"))
    """Tokens of each example."""
    groups: array[int] = field(default_factory=partial(array, "i"))
    """The group of each example."""
    examples: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    """Rows with each label."""
    first_rows: defaultdict[int, list[FirstRow]] = field(default_factory=partial(defaultdict, list))
    """By source, the first `FIRST_ROWS` rows that gave an example."""

    @property
    def tokens(self) -> int:
        """Tokens of all examples."""
        return sum(self.lengths)

    @property
    def label_balance(self) -> dict[str, int]:
        """Rows with each label, the most frequent first."""
        return dict(sorted(self.labels.items(), key=lambda item: (-item[1], item[0])))

    def add(self, row: Row, encoded: EncodedRow) -> None:
        """Count a row."""
        self.rows += 1
        statuses: list[EncodeStatus | EncodeIssue] = [encoded.status, *encoded.issues]
        is_cut = encoded.status in (EncodeStatus.TRUNCATED, EncodeStatus.DROPPED)
        if is_cut and not any(issue in LENGTH_ISSUES for issue in encoded.issues):
            statuses.append(EncodeIssue.LONG_TEXT)
        for status in statuses:
            self.statuses[status] += 1
            self.first_origins.setdefault(status, row.origin)
        self.labels.update(encoded.labels)

    def add_first_row(self, split_row: SplitRow, example: Mapping[str, Any], index: int) -> None:
        """Remember the row and its first example, which has this index, if it is among the first ones of its source."""
        rows = self.first_rows[split_row.source]
        if len(rows) < FIRST_ROWS:
            rows.append(FirstRow(split_row.source, split_row.row.origin, index, example_digest(example.get(TOKENS, ()))))


def split_or_truncate(
    tokens: Tokens, max_length: int, overlong: Overlong, overlap: int = 0
) -> tuple[list[Tokens], EncodeStatus]:
    """The pieces of one document [any length], each of at most `max_length` tokens and more than `overlap`.

    Causal language models split with an overlap of one: a piece's first token is not predicted within it, so that every token
    of the document except the first is predicted exactly once.
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
    """Writes examples to an Arrow stream file; memory holds one batch at a time."""

    def __init__(
        self, path: Path, fields: Mapping[str, pyarrow.DataType], origins: OriginWriter | None = None
    ) -> None:  # fmt: skip
        """`origins`, if given, receives the place in the data that each example comes from."""
        self.path = path
        self._origins = origins
        self.counts = EncodeCounts()
        self._schema = pyarrow.schema(list(fields.items()))
        self._sink = pyarrow.OSFile(str(path), "wb")
        self._writer = pyarrow.ipc.new_stream(self._sink, self._schema)

    def write(self, examples: Sequence[Mapping[str, Any]], origins: Sequence[str] = ()) -> None:
        """Append the examples, in order, and their origins, if these are stored."""
        if not examples:
            return
        if self._origins:
            self._origins.write([example_digest(example.get(TOKENS, ())) for example in examples], origins)
        columns = [_column([example[field.name] for example in examples], field.type) for field in self._schema]
        self._writer.write_batch(pyarrow.record_batch(columns, schema=self._schema))
        self.counts.examples += len(examples)
        self.counts.lengths.extend(len(example[TOKENS]) for example in examples if TOKENS in example)

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
        self._sink.close()
        if self._origins:
            self._origins.close()


def write_examples(
    rows: Iterable[SplitRow], encoder: Encoder, writers: Mapping[Split, ExampleWriter], group: Callable[[SplitRow], int],
    advance: Callable[[int], None],
) -> None:  # fmt: skip
    """Encode all rows, write the examples to the writer of their split, and record the `group` of each row's examples.

    `advance` is called with the number of rows of each batch.
    """
    for batch in batches(rows, encoder.batch_size):
        # Each split is encoded separately: an encoder may combine rows of a batch, but must not combine splits.
        for split, writer in writers.items():
            _write_batch([split_row for split_row in batch if split_row.split == split], encoder, writer, group)
        advance(len(batch))


def _write_batch(
    rows: Sequence[SplitRow], encoder: Encoder, writer: ExampleWriter, group: Callable[[SplitRow], int]
) -> None:  # fmt: skip
    if not rows:
        return
    examples: list[Mapping[str, Any]] = []
    origins: list[str] = []
    encoded_rows = encoder.encode([split_row.row for split_row in rows])
    for split_row, encoded in zip(rows, encoded_rows, strict=True):
        if not split_row.is_copy:
            writer.counts.add(split_row.row, encoded)
            if encoded.examples:
                writer.counts.add_first_row(split_row, encoded.examples[0], writer.counts.examples + len(examples))
        writer.counts.groups.extend([group(split_row)] * len(encoded.examples))
        examples.extend(encoded.examples)
        origins.extend([split_row.row.origin] * len(encoded.examples))
    writer.write(examples, origins)


def _column(values: Sequence[Any], kind: pyarrow.DataType) -> pyarrow.Array:
    if not pyarrow.types.is_list(kind):
        return pyarrow.array(values, kind)
    offsets = np.cumsum([0, *(len(value) for value in values)], dtype=np.int32)
    numbers = np.concatenate(values).astype(kind.value_type.to_pandas_dtype(), copy=False)
    return pyarrow.ListArray.from_arrays(offsets, numbers)
