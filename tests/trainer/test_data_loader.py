"""Micro-batches come in the order of the data, ahead of time, and the same rows whatever the ranks."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from finetune_trainer.data.collate import IGNORED, Batch, PackedAs, tokens
from finetune_trainer.data.loader import AHEAD, Maker, Prefetched
from finetune_trainer.data.order import Indices, Order, sequential
from finetune_trainer.data.pieces import PieceWriter
from finetune_trainer.data.rows import Rows

COUNT = 23


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """Row i holds 2 + i % 5 tokens, all of them 10 + i; written in uneven chunks."""
    writer = PieceWriter(tmp_path / "rows.arrow")
    pieces = [np.full(2 + i % 5, 10 + i, np.int32) for i in range(COUNT)]
    for begin, end in itertools.pairwise((0, 1, 8, 8, COUNT)):
        writer.write(pieces[begin:end])
    writer.close()
    return Rows(writer.path)


def maker(rows: Rows, rank: int = 0, size: int = 1, micro: int = 4) -> Maker:
    return Maker(rows, rank, size, micro, pad_id=1, packed_as=PackedAs.POSITIONS)


def numbers(batches: list[Batch]) -> list[int]:
    """The rows in micro-batches, by the token that each is made of."""
    return [int(first) - 10 for batch in batches for first in batch["input_ids"][:, 0] if first != 1]


def test_rows_are_read_across_chunks(rows: Rows) -> None:
    assert [(len(row.tokens), int(row.tokens[0]), row.lengths.tolist()) for row in rows] == [
        (2 + i % 5, 10 + i, [2 + i % 5]) for i in range(COUNT)
    ]
    assert rows.longest == 6
    with pytest.raises(IndexError):
        rows[COUNT]


@pytest.mark.parametrize(("size", "micro"), list(itertools.product([1, 2, 3, 4], [1, 2, 12])))
def test_the_same_rows_at_any_number_of_ranks(rows: Rows, size: int, micro: int) -> None:
    order = Order(COUNT, 12, seed=7)
    for step in range(4):
        made = [maker(rows, rank, size, micro)(order.rows_of_step(step)) for rank in range(size)]
        assert [n for rank in made for n in numbers(rank)] == order.rows_of_step(step).tolist()
        learnt = sum(int((batch["labels"] != IGNORED).sum()) for rank in made for batch in rank)
        assert learnt == sum(1 + int(i) % 5 for i in order.rows_of_step(step))
        assert sum(tokens(batch) for rank in made for batch in rank) == sum(2 + int(i) % 5 for i in order.rows_of_step(step))


def test_steps_come_in_order_and_end(rows: Rows) -> None:
    order = Order(COUNT, 5, seed=1)
    steps = [order.rows_of_step(step) for step in range(3, 30)]
    with Prefetched(maker(rows), steps) as batches:
        assert [numbers(step) for step in batches] == [step.tolist() for step in steps]
        with pytest.raises(StopIteration):
            next(batches)


def test_evaluation_takes_each_row_once(rows: Rows) -> None:
    seen = [[n for step in Prefetched(maker(rows, rank, 2, 3), sequential(COUNT, 6)) for n in numbers(step)] for rank in (0, 1)]
    assert sorted(seen[0] + seen[1]) == list(range(COUNT))


def test_batches_wait_for_the_device_and_not_it_for_them(rows: Rows) -> None:
    taken: list[int] = []

    def steps() -> Iterator[Indices]:
        for step in range(100):
            taken.append(step)
            yield np.array([step % COUNT])

    with Prefetched(maker(rows), steps()) as batches:
        deadline = time.monotonic() + 10
        while len(taken) < AHEAD + 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(taken) == AHEAD + 1
        next(batches)


def test_a_failure_in_the_thread_is_raised_by_next(rows: Rows) -> None:
    with Prefetched(maker(rows), [np.array([0]), np.array([COUNT])]) as batches:
        assert numbers(next(batches)) == [0]
        with pytest.raises(IndexError):
            next(batches)


def test_the_thread_ends_with_its_iterator(rows: Rows) -> None:
    batches = Prefetched(maker(rows), itertools.repeat(np.array([0])))
    next(batches)
    thread = next(found for found in threading.enumerate() if found.name == "batches")
    del batches
    gc.collect()
    thread.join(timeout=10)
    assert not thread.is_alive()
