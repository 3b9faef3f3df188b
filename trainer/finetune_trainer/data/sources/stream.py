"""All records of a document's data in the one order in which every node sees them, each with its side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Literal, NamedTuple

from finetune_trainer import config
from finetune_trainer.data.records.digests import value_digest
from finetune_trainer.data.records.row import Row
from finetune_trainer.data.sources.base import Source

Split = Literal["train", "replay", "evaluation"]
TRAIN: Split = "train"
REPLAY: Split = "replay"
EVALUATION: Split = "evaluation"
TRAINING_SPLITS: tuple[Split, ...] = (TRAIN, REPLAY)
SPLITS: tuple[Split, ...] = (*TRAINING_SPLITS, EVALUATION)
Sources = Mapping[str, Sequence[Source]]


class SplitRow(NamedTuple):
    """A record, the side that it is on, and the number of its source in the list of `data` that `given` names."""

    row: Row
    split: Split
    source: int
    section: Split
    is_copy: bool = False
    """Whether it was made of the record before it."""


@dataclass(frozen=True)
class RowStream:
    """The training sources' records in their order, the earlier ones' where they are rehearsed, then the evaluation's.

    Each iteration reads them anew.
    """

    data: config.DataConfig
    sources: Sources
    dropped: Sequence[bool] = ()
    """By a record's place in the whole order; empty while nothing is."""
    change: Callable[[Row], Row] | None = None

    def __iter__(self) -> Iterator[SplitRow]:
        for place, placed in enumerate(self._all()):
            if len(self.dropped) and self.dropped[place]:
                continue
            yield placed if self.change is None else placed._replace(row=self.change(placed.row))

    def training(self) -> Iterator[Row]:
        """The records to learn from."""
        return (placed.row for placed in self if placed.split in TRAINING_SPLITS)

    def without(self, dropped: Sequence[bool]) -> RowStream:
        """The same without the records at these places."""
        return replace(self, dropped=dropped)

    def changed(self, change: Callable[[Row], Row]) -> RowStream:
        """The same with each record changed."""
        return replace(self, change=change)

    def origins(self, places: Iterable[int]) -> dict[int, str]:
        """Where the records at these places of the whole order come from."""
        wanted = set(places)
        seen = islice(enumerate(self._all()), max(wanted, default=-1) + 1)
        return {place: placed.row.origin for place, placed in seen if place in wanted}

    def _all(self) -> Iterator[SplitRow]:
        given = chain.from_iterable(
            (SplitRow(record, side, number, side) for record in source.rows())
            for side in SPLITS
            for number, source in enumerate(self.sources.get(side, ()))
        )
        for placed in given:
            held_out = placed.section == TRAIN and is_held_out(placed.row, self.data)
            yield placed._replace(split=EVALUATION) if held_out else placed


def is_held_out(record: Row, data: config.DataConfig) -> bool:
    """Whether a training record is for evaluation: by its subject alone, so that the same one has only one side."""
    if data.folds is not None:
        return value_digest(record.subject) * data.folds.count >> 64 == data.folds.hold
    fraction = data.evaluation_fraction
    return fraction is not None and value_digest(record.subject) < fraction * 2**64
