"""All rows of a document's data, each with its split, in an order that is the same on every node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finetune_trainer import config
from finetune_trainer.data.records.digests import value_digest
from finetune_trainer.data.records.row import Row, texts
from finetune_trainer.data.sources.base import Source

Split = Literal["train", "replay", "evaluation"]
TRAIN: Split = "train"
REPLAY: Split = "replay"
EVALUATION: Split = "evaluation"
TRAINING_SPLITS: tuple[Split, ...] = (TRAIN, REPLAY)
SPLITS: tuple[Split, ...] = (*TRAINING_SPLITS, EVALUATION)
Sources = Mapping[str, Sequence[Source]]

# A batch ends at this limit or at the caller's: large enough to use all cores, small enough to hold in memory.
BATCH_CHARACTERS = 2_000_000


class SplitRow(NamedTuple):
    """A row and its split. `source` is the index of its source in the `section` of `data` that lists it."""

    row: Row
    split: Split
    source: int
    section: Split
    is_copy: bool = False
    """Whether augmentation made it from the row before it."""


@dataclass(frozen=True)
class RowStream:
    """The rows of the training sources, then of the replay sources, then of the evaluation sources.

    Each iteration reads the sources from the beginning.
    """

    data: config.DataConfig
    sources: Sources
    dropped: NDArray[np.bool_] | None = None
    """Whether each row is left out, by its position among all rows."""
    transform: Callable[[Row], Row] | None = None

    def __iter__(self) -> Iterator[SplitRow]:
        for position, split_row in enumerate(self._all_rows()):
            if self.dropped is not None and self.dropped[position]:
                continue
            yield split_row if self.transform is None else split_row._replace(row=self.transform(split_row.row))

    def training(self) -> Iterator[Row]:
        """The rows of the training splits."""
        for split_row in self:
            if split_row.split in TRAINING_SPLITS:
                yield split_row.row

    def without(self, dropped: NDArray[np.bool_]) -> RowStream:
        """This stream without the rows that `dropped` marks."""
        return replace(self, dropped=dropped)

    def map(self, transform: Callable[[Row], Row]) -> RowStream:
        """This stream with each row transformed."""
        return replace(self, transform=transform)

    def origins(self, positions: Iterable[int]) -> dict[int, str]:
        """The origin of the rows at these positions among all rows."""
        remaining = set(positions)
        origins: dict[int, str] = {}
        if not remaining:
            return origins
        for position, split_row in enumerate(self._all_rows()):
            if position in remaining:
                origins[position] = split_row.row.origin
                remaining.remove(position)
                if not remaining:
                    break
        return origins

    def _all_rows(self) -> Iterator[SplitRow]:
        for section in SPLITS:
            for number, source in enumerate(self.sources.get(section, ())):
                for row in source.rows():
                    held_out = section == TRAIN and is_held_out(row, self.data)
                    yield SplitRow(row, EVALUATION if held_out else section, number, section)


def is_held_out(row: Row, data: config.DataConfig) -> bool:
    """Whether a training row is held out for evaluation: by its subject alone, so that equal subjects share a split."""
    if data.folds is not None:
        return value_digest(row.subject) * data.folds.count >> 64 == data.folds.hold
    fraction = data.evaluation_fraction
    return fraction is not None and value_digest(row.subject) < fraction * 2**64


def batches(rows: Iterable[SplitRow], max_rows: int) -> Iterator[list[SplitRow]]:
    """Batches of rows from one source each, since another source may have other columns."""
    batch: list[SplitRow] = []
    characters = 0
    for split_row in rows:
        is_full = len(batch) == max_rows or characters >= BATCH_CHARACTERS
        if batch and (is_full or (split_row.section, split_row.source) != (batch[0].section, batch[0].source)):
            yield batch
            batch, characters = [], 0
        batch.append(split_row)
        characters += sum(map(len, texts(split_row.row)))
    if batch:
        yield batch
