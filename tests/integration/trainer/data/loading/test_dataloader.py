"""Micro-batches are prefetched in the order of the data, with the same rows at any number of ranks."""

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
from finetune_trainer.data.loading.dataloader import PREFETCH_STEPS, BatchBuilder, MicroBatch, PrefetchLoader, sample_generator
from finetune_trainer.data.loading.dataset import TOKENS, ArrowDataset, document_lengths
from finetune_trainer.data.loading.sampler import SampledIndices, Sampler, sequential
from finetune_trainer.data.preprocessing.examples import ExampleWriter
from finetune_trainer.objectives.causal_lm import CausalLMCollator, CausalLMEncoder

COUNT = 23


@pytest.fixture
def rows(tmp_path: Path) -> ArrowDataset:
    """Row i has 2 + i % 5 tokens, each of them 10 + i; written in chunks of different sizes."""
    writer = ExampleWriter(tmp_path / "rows.arrow", CausalLMEncoder.fields)
    examples = [{TOKENS: np.full(2 + i % 5, 10 + i, np.int32)} for i in range(COUNT)]
    for begin, end in itertools.pairwise((0, 1, 8, 8, COUNT)):
        writer.write(examples[begin:end])
    writer.close()
    assert (writer.counts.examples, writer.counts.tokens) == (COUNT, sum(2 + i % 5 for i in range(COUNT)))
    return ArrowDataset(writer.path)


def builder(rows: ArrowDataset, rank: int = 0, size: int = 1, micro: int = 4) -> BatchBuilder:
    return BatchBuilder(rows, CausalLMCollator(tiny.tokenizer()), Layout(PackedAs.POSITIONS), rank, size, micro, seed=1)


def single_row(row: int) -> SampledIndices:
    return SampledIndices(np.array([row]), np.array([0]))


def numbers(batches: list[MicroBatch]) -> list[int]:
    """The rows of the micro-batches, from their tokens."""
    return [int(first) - 10 for micro in batches for first in micro.batch.inputs["input_ids"][:, 0] if first != 0]


def test_reads_rows_across_chunks(rows: ArrowDataset) -> None:
    assert [(len(row[TOKENS]), int(row[TOKENS][0]), document_lengths(row).tolist()) for row in rows] == [
        (2 + i % 5, 10 + i, [2 + i % 5]) for i in range(COUNT)
    ]
    assert rows.longest == 6
    with pytest.raises(IndexError):
        rows[COUNT]


@pytest.mark.parametrize(("size", "micro"), list(itertools.product([1, 2, 3, 4], [1, 2, 12])))
def test_same_rows_at_any_number_of_ranks(rows: ArrowDataset, size: int, micro: int) -> None:
    sampler = Sampler(COUNT, 12, seed=7)
    for step in range(4):
        taken = sampler.indices_for_step(step)
        built = [builder(rows, rank, size, micro)(taken) for rank in range(size)]
        assert [n for rank in built for n in numbers(rank)] == taken.rows.tolist()
        assert sum(batch.terms[0] for rank in built for batch in rank) == sum(1 + int(i) % 5 for i in taken.rows)
        filled = [micro for rank in built for micro in rank if micro.terms[0]]
        assert sum(batch.tokens for batch in filled) == sum(2 + int(i) % 5 for i in taken.rows)
        assert all(micro.positions == micro.batch.inputs["input_ids"].numel() for micro in filled)


def test_yields_steps_in_order_and_ends(rows: ArrowDataset) -> None:
    sampler = Sampler(COUNT, 5, seed=1)
    steps = [sampler.indices_for_step(step) for step in range(3, 30)]
    with PrefetchLoader(builder(rows), steps) as batches:
        assert [numbers(step) for step in batches] == [step.rows.tolist() for step in steps]
        with pytest.raises(StopIteration):
            next(batches)


def test_evaluation_uses_each_row_once(rows: ArrowDataset) -> None:
    seen = [
        [n for step in PrefetchLoader(builder(rows, rank, 2, 3), sequential(COUNT, 6)) for n in numbers(step)]
        for rank in (0, 1)
    ]
    assert sorted(seen[0] + seen[1]) == list(range(COUNT))


def test_prefetches_a_fixed_number_of_steps(rows: ArrowDataset) -> None:
    taken: list[int] = []

    def steps() -> Iterator[SampledIndices]:
        for step in range(100):
            taken.append(step)
            yield single_row(step % COUNT)

    with PrefetchLoader(builder(rows), steps()) as batches:
        deadline = time.monotonic() + 10
        while len(taken) < PREFETCH_STEPS + 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(taken) == PREFETCH_STEPS + 1
        next(batches)


def test_next_raises_errors_of_the_thread(rows: ArrowDataset) -> None:
    with PrefetchLoader(builder(rows), [single_row(0), single_row(COUNT)]) as batches:
        assert numbers(next(batches)) == [0]
        with pytest.raises(IndexError):
            next(batches)


def test_thread_ends_with_its_iterator(rows: ArrowDataset) -> None:
    batches = PrefetchLoader(builder(rows), itertools.repeat(single_row(0)))
    next(batches)
    thread = next(thread for thread in threading.enumerate() if thread.name == "batches")
    del batches
    gc.collect()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_each_row_and_epoch_has_its_own_random_numbers() -> None:
    drawn = {sample_generator(seed, epoch, row).random() for seed in (1, 2) for epoch in (0, 1) for row in (0, 1)}
    assert len(drawn) == 8
    assert sample_generator(1, 2, 3).random() == sample_generator(1, 2, 3).random()
