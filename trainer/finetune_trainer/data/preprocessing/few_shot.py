"""Evaluation rows with solved training rows before them (Brown et al. 2020, arXiv:2005.14165), the same on every machine."""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice

import numpy as np

from finetune_trainer.data.checks.report import FewShotReport
from finetune_trainer.data.loading.dataloader import sample_generator
from finetune_trainer.data.preprocessing.examples import EncodedRow, Encoder, EncodeStatus
from finetune_trainer.data.records.row import Row
from finetune_trainer.data.sources.stream import SplitRow
from finetune_trainer.protocol.outcome import DataError

FIELD = "spec.evaluation.fewShot"
DRAWN = 1000  # training rows that are kept in memory, however many there are
FOR_DRAWING, FOR_ROWS = 0, 1  # streams of random numbers


def draw(records: Iterable[Row], encoder: Encoder, wanted: int, seed: int) -> list[Row]:
    """At most `DRAWN` of the training records, drawn by the seed, without those that do not fit a sequence whole.

    Raises DataError if less than `wanted` are left.
    """
    random = sample_generator(seed, FOR_DRAWING, 0).bit_generator
    least = heapq.nsmallest(DRAWN, zip(iter(random.random_raw, None), count(), records, strict=False))
    usable = [record for _, _, record in least if _encoded(encoder, record).status is EncodeStatus.KEPT]
    if len(usable) < wanted:
        raise DataError(
            f"{FIELD}.examples: {wanted} are to stand before a row, and {len(usable)} of {len(least)} training rows fit into a "
            "sequence whole: lower it, raise data.maxLength, or add data"
        )
    return usable


@dataclass
class Examples:
    """Gives each record its examples: of the drawn ones as many as are wanted, or as the record stays whole with."""

    encoder: Encoder
    drawn: list[Row]
    wanted: int
    seed: int
    given: array[int] = field(default_factory=partial(array, "i"))
    """How many each record has that can be used."""

    def __call__(self, records: Iterable[SplitRow]) -> Iterator[SplitRow]:
        """The records in their order; raises DataError for one that cannot be encoded behind its examples."""
        for place, placed in enumerate(records):
            examples = self._chosen(placed.row, place)
            shown = placed.row._replace(examples=examples[: self._room(placed.row, examples)])
            if shown.examples or _encoded(self.encoder, shown).examples:
                self.given.append(len(shown.examples))
            yield placed._replace(row=shown)

    def report(self) -> FewShotReport:
        """What became of the records so far."""
        given = np.array(self.given)
        return FewShotReport(rows=len(given), examples=float(given.mean()), shortened=int((given < self.wanted).sum()))

    def _chosen(self, record: Row, place: int) -> list[Row]:
        """By the record's place; none of the same subject, whose answer would give the record's away."""
        # The raw stream of a bit generator is the same in every version of NumPy; Generator.permutation is not.
        order = np.argsort(
            sample_generator(self.seed, FOR_ROWS, place).bit_generator.random_raw(len(self.drawn)), kind="stable"
        )
        others = (self.drawn[index] for index in order.tolist())
        return list(islice((one for one in others if one.subject != record.subject), self.wanted))

    def _room(self, record: Row, examples: list[Row]) -> int:
        """How many of the examples leave the record whole."""

        def spoils(number: int) -> bool:
            try:
                return _encoded(self.encoder, record._replace(examples=examples[:number])).status is not EncodeStatus.KEPT
            except DataError as error:
                raise DataError(f"{FIELD}: behind solved rows, {error}") from error

        if not examples or not spoils(len(examples)):
            return len(examples)
        return bisect_left(range(1, len(examples)), True, key=spoils)


def _encoded(encoder: Encoder, record: Row) -> EncodedRow:
    [encoded] = encoder.encode([record])
    return encoded
