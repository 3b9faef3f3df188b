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
from tests.support import tiny

from finetune_trainer.data.loading.collate import Layout, PackedAs
from finetune_trainer.data.loading.dataloader import AHEAD, BatchBuilder, MicroBatch, PrefetchLoader, sample_generator
from finetune_trainer.data.loading.dataset import TOKENS, ArrowDataset, document_lengths
from finetune_trainer.data.loading.sampler import SampledIndices, Sampler, sequential
from finetune_trainer.data.preprocessing.examples import ExampleWriter
from finetune_trainer.objectives.causal_lm import CausalLMCollator, CausalLMEncoder

COUNT = 23


@pytest.fixture
def rows(tmp_path: Path) -> ArrowDataset:
    """Row i holds 2 + i % 5 tokens, all of them 10 + i; written in uneven chunks."""
    writer = ExampleWriter(tmp_path / "rows.arrow", CausalLMEncoder.fields)
    examples = [{TOKENS: np.full(2 + i % 5, 10 + i, np.int32)} for i in range(COUNT)]
    for begin, end in itertools.pairwise((0, 1, 8, 8, COUNT)):
        writer.write(examples[begin:end])
    writer.close()
    assert (writer.counts.examples, writer.counts.tokens) == (COUNT, sum(2 + i % 5 for i in range(COUNT)))
    return ArrowDataset(writer.path)


def maker(rows: ArrowDataset, rank: int = 0, size: int = 1, micro: int = 4) -> BatchBuilder:
    return BatchBuilder(rows, CausalLMCollator(tiny.tokenizer()), Layout(PackedAs.POSITIONS), rank, size, micro, seed=1)


def picks(row: int) -> SampledIndices:
    return SampledIndices(np.array([row]), np.array([0]))


def numbers(batches: list[MicroBatch]) -> list[int]:
    """The rows in micro-batches, by the token that each is made of."""
    return [int(first) - 10 for micro in batches for first in micro.batch.inputs["input_ids"][:, 0] if first != 0]


def test_rows_are_read_across_chunks(rows: ArrowDataset) -> None:
    assert [(len(row[TOKENS]), int(row[TOKENS][0]), document_lengths(row).tolist()) for row in rows] == [
        (2 + i % 5, 10 + i, [2 + i % 5]) for i in range(COUNT)
    ]
    assert rows.longest == 6
    with pytest.raises(IndexError):
        rows[COUNT]


@pytest.mark.parametrize(("size", "micro"), list(itertools.product([1, 2, 3, 4], [1, 2, 12])))
def test_the_same_rows_at_any_number_of_ranks(rows: ArrowDataset, size: int, micro: int) -> None:
    order = Sampler(COUNT, 12, seed=7)
    for step in range(4):
        taken = order.indices_for_step(step)
        made = [maker(rows, rank, size, micro)(taken) for rank in range(size)]
        assert [n for rank in made for n in numbers(rank)] == taken.rows.tolist()
        assert sum(batch.terms[0] for rank in made for batch in rank) == sum(1 + int(i) % 5 for i in taken.rows)
        filled = [micro for rank in made for micro in rank if micro.terms[0]]
        assert sum(batch.tokens for batch in filled) == sum(2 + int(i) % 5 for i in taken.rows)
        assert all(micro.positions == micro.batch.inputs["input_ids"].numel() for micro in filled)


def test_steps_come_in_order_and_end(rows: ArrowDataset) -> None:
    order = Sampler(COUNT, 5, seed=1)
    steps = [order.indices_for_step(step) for step in range(3, 30)]
    with PrefetchLoader(maker(rows), steps) as batches:
        assert [numbers(step) for step in batches] == [step.rows.tolist() for step in steps]
        with pytest.raises(StopIteration):
            next(batches)


def test_evaluation_takes_each_row_once(rows: ArrowDataset) -> None:
    seen = [
        [n for step in PrefetchLoader(maker(rows, rank, 2, 3), sequential(COUNT, 6)) for n in numbers(step)] for rank in (0, 1)
    ]
    assert sorted(seen[0] + seen[1]) == list(range(COUNT))


def test_batches_wait_for_the_device_and_not_it_for_them(rows: ArrowDataset) -> None:
    taken: list[int] = []

    def steps() -> Iterator[SampledIndices]:
        for step in range(100):
            taken.append(step)
            yield picks(step % COUNT)

    with PrefetchLoader(maker(rows), steps()) as batches:
        deadline = time.monotonic() + 10
        while len(taken) < AHEAD + 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(taken) == AHEAD + 1
        next(batches)


def test_a_failure_in_the_thread_is_raised_by_next(rows: ArrowDataset) -> None:
    with PrefetchLoader(maker(rows), [picks(0), picks(COUNT)]) as batches:
        assert numbers(next(batches)) == [0]
        with pytest.raises(IndexError):
            next(batches)


def test_the_thread_ends_with_its_iterator(rows: ArrowDataset) -> None:
    batches = PrefetchLoader(maker(rows), itertools.repeat(picks(0)))
    next(batches)
    thread = next(found for found in threading.enumerate() if found.name == "batches")
    del batches
    gc.collect()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_each_row_has_its_own_random_numbers_in_each_pass() -> None:
    drawn = {sample_generator(seed, epoch, row).random() for seed in (1, 2) for epoch in (0, 1) for row in (0, 1)}
    assert len(drawn) == 8
    assert sample_generator(1, 2, 3).random() == sample_generator(1, 2, 3).random()
