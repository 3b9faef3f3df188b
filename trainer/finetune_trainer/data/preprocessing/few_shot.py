"""Evaluation rows after solved training rows (Brown et al. 2020, arXiv:2005.14165), equal on every machine."""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import numpy as np

from finetune_trainer.data.checks.report import FewShotReport
from finetune_trainer.data.loading.dataloader import sample_generator
from finetune_trainer.data.preprocessing.examples import EncodedRow, Encoder, EncodeStatus
from finetune_trainer.data.records.row import Row
from finetune_trainer.data.sources.stream import SplitRow
from finetune_trainer.protocol.outcome import DataError, InsufficientDataError

FIELD = "spec.evaluation.fewShot"
POOL_ROWS = 1000  # training rows that are kept in memory, out of any number
POOL_STREAM, ROW_STREAM = 0, 1  # streams of random numbers


def draw_pool(rows: Iterable[Row], encoder: Encoder, examples: int, seed: int) -> list[Row]:
    """At most `POOL_ROWS` training rows, drawn by the seed, without those that do not fit into a sequence whole.

    Raises InsufficientDataError if fewer than `examples` are left.
    """
    random = sample_generator(seed, POOL_STREAM, 0).bit_generator
    # Rows with the smallest random keys: a uniform sample of a stream of unknown length.
    drawn = heapq.nsmallest(POOL_ROWS, zip(iter(random.random_raw, None), count(), rows, strict=False))
    pool = [row for _, _, row in drawn if _encode(encoder, row).status is EncodeStatus.KEPT]
    if len(pool) < examples:
        raise InsufficientDataError(
            f"{FIELD}.examples: {examples} solved rows are needed before a row, and {len(pool)} of {len(drawn)} training rows "
            "fit into a sequence whole: lower it, raise data.maxLength, or add data"
        )
    return pool


@dataclass
class FewShotPrompter:
    """Adds solved rows from the pool to each row: as many as `examples`, or as many as leave the row whole."""

    encoder: Encoder
    pool: list[Row]
    examples: int
    seed: int
    counts: array[int] = field(default_factory=partial(array, "i"))
    """The number of solved rows before each usable row."""

    def add_examples(self, rows: Iterable[SplitRow]) -> Iterator[SplitRow]:
        """The rows in order, with solved rows; raises DataError for one that cannot be encoded after them."""
        for position, split_row in enumerate(rows):
            row = split_row.row
            examples = self._choose(row, position)
            prompted = row._replace(examples=examples[: self._count_that_fits(row, examples)])
            if prompted.examples or _encode(self.encoder, prompted).examples:
                self.counts.append(len(prompted.examples))
            yield split_row._replace(row=prompted)

    def report(self) -> FewShotReport:
        """Statistics of the rows so far."""
        counts = np.array(self.counts)
        return FewShotReport(rows=len(counts), examples=float(counts.mean()), shortened=int((counts < self.examples).sum()))

    def _choose(self, row: Row, position: int) -> list[Row]:
        """Solved rows, drawn by the row's position; none with the same subject, as its answer would reveal the row's."""
        # The raw stream of a bit generator is the same in every version of NumPy; Generator.permutation is not.
        keys = sample_generator(self.seed, ROW_STREAM, position).bit_generator.random_raw(len(self.pool))
        chosen: list[Row] = []
        for index in np.argsort(keys, kind="stable").tolist():
            if len(chosen) == self.examples:
                break
            if self.pool[index].subject != row.subject:
                chosen.append(self.pool[index])
        return chosen

    def _count_that_fits(self, row: Row, examples: list[Row]) -> int:
        """The largest number of solved rows that leaves the row whole."""

        def is_too_many(number: int) -> bool:
            try:
                encoded = _encode(self.encoder, row._replace(examples=examples[:number]))
            except DataError as error:
                raise DataError(f"{FIELD}: after solved rows, {error}") from error
            return encoded.status is not EncodeStatus.KEPT

        if not examples or not is_too_many(len(examples)):
            return len(examples)
        return bisect_left(range(1, len(examples)), True, key=is_too_many)


def _encode(encoder: Encoder, row: Row) -> EncodedRow:
    [encoded] = encoder.encode([row])
    return encoded
