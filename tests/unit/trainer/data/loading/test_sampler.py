"""Sampling is a function of the seed and the step, and the ranks split each batch without losing or repeating a row."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from finetune_trainer.data.loading.sampler import (
    Mixture,
    SampledIndices,
    Sampler,
    quotas,
    sequential,
    split_across_ranks,
    total_steps,
)


@pytest.mark.parametrize(
    ("rows", "batch", "epochs", "max_steps", "steps"),
    [
        (100, 10, None, None, 10),
        (100, 10, 3, None, 30),
        (101, 10, 1, None, 11),
        (5, 32, 1, None, 1),
        (5, 32, 7, None, 2),
        (100, 10, None, 7, 7),
    ],
)
def test_total_steps(rows: int, batch: int, epochs: int | None, max_steps: int | None, steps: int) -> None:
    assert total_steps(rows, batch, epochs, max_steps) == steps


@pytest.mark.parametrize(("rows", "batch"), [(10, 4), (12, 4), (3, 8), (1, 1), (7, 7)])
def test_every_epoch_contains_every_row_once(rows: int, batch: int) -> None:
    sampler = Sampler(rows, batch, seed=1)
    epochs = 4 * batch
    indices = [sampler.indices_for_step(step) for step in range(rows * epochs // batch)]
    for number, epoch in enumerate(np.concatenate([step.rows for step in indices]).reshape(epochs, rows)):
        assert sorted(epoch) == list(range(rows))
        assert set(np.concatenate([step.epochs for step in indices])[number * rows : (number + 1) * rows]) == {number}


def test_a_step_does_not_depend_on_earlier_calls() -> None:
    sequential_sampler = Sampler(97, 8, seed=5)
    steps = [sequential_sampler.indices_for_step(step).rows.tolist() for step in range(60)]
    for step in (59, 0, 13, 12, 30):
        assert Sampler(97, 8, seed=5).indices_for_step(step).rows.tolist() == steps[step]


def test_order_differs_by_seed_and_epoch_and_is_pinned() -> None:
    first, second = (Sampler(50, 50, seed=3).indices_for_step(step).rows.tolist() for step in (0, 1))
    assert first != second
    assert Sampler(50, 50, seed=4).indices_for_step(0).rows.tolist() != first
    # Pinned: a new version of NumPy must not change the sampler when a run resumes.
    assert Sampler(12, 12, seed=42).indices_for_step(0).rows.tolist() == PINNED


PINNED = [11, 7, 1, 6, 10, 4, 3, 5, 9, 0, 2, 8]


def test_epoch_at_a_step() -> None:
    assert [Sampler(20, 8, seed=0).epoch_at(step) for step in (0, 5, 10)] == [0.0, 2.0, 4.0]


@pytest.mark.parametrize("batch", [32, 30, 7, 1])
@pytest.mark.parametrize(("size", "micro"), list(itertools.product([1, 2, 3, 4], [1, 2, 4, 64])))
def test_ranks_together_have_the_whole_batch(batch: int, size: int, micro: int) -> None:
    rows = np.arange(batch) * 3
    shares = [split_across_ranks(SampledIndices(rows, rows + 1), rank, size, micro) for rank in range(size)]
    parts = [part for rank in shares for part in rank]
    assert np.concatenate([part.rows for part in parts]).tolist() == rows.tolist()
    assert all(np.array_equal(part.epochs, part.rows + 1) for part in parts)
    assert len({len(rank) for rank in shares}) == 1, "collectives need the same number of micro-batches on every rank"
    sizes = [len(part.rows) for part in parts]
    assert max(sizes) <= micro
    assert max(sizes) - min(sizes) <= 1


def test_sequential_yields_every_row_once() -> None:
    assert [part.rows.tolist() for part in sequential(5, 2)] == [[0, 1], [2, 3], [4]]


def sample_mixture(
    sizes: list[int], shares: list[float], batch: int, steps: int, seed: int = 1
) -> tuple[Sampler, SampledIndices]:
    """A sampler over groups of these sizes, and the indices of its first steps."""
    groups = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    sampler = Sampler(sum(sizes), batch, seed, Mixture(groups, shares))
    batches = [sampler.indices_for_step(step) for step in range(steps)]
    return sampler, SampledIndices(*(np.concatenate(column) for column in zip(*batches, strict=True)))


@pytest.mark.parametrize(
    ("shares", "rows", "expected"),
    [
        ([1, 1], 10, [5, 5]),
        ([3, 1], 8, [6, 2]),
        ([1, 1, 1], 10, [4, 3, 3]),
        ([0.7, 0.2, 0.1], 100, [70, 20, 10]),
        ([1000, 1, 1], 10, [8, 1, 1]),
        ([1e-9, 1], 2, [1, 1]),
    ],
)
def test_quotas_add_up_to_the_epoch(shares: list[float], rows: int, expected: list[int]) -> None:
    assert quotas(shares, rows) == expected


def test_each_group_has_its_share_and_cycles_through_its_rows() -> None:
    _, (rows, passes) = sample_mixture([60, 30, 10], [1, 1, 2], 10, 40)
    bounds = (0, 60, 90, 100)
    for epoch in range(4):
        taken = rows[epoch * 100 : (epoch + 1) * 100]
        assert np.histogram(taken, bounds)[0].tolist() == [25, 25, 50]
    for begin, end in itertools.pairwise(bounds):
        own = (rows >= begin) & (rows < end)
        for number in range(passes[own].max()):
            assert sorted(rows[own & (passes == number)]) == list(range(begin, end)), "a pass contains every row once"
    assert passes[rows >= 90].max() == 19
    assert passes[rows < 60].max() == 1


def test_groups_are_mixed_within_an_epoch() -> None:
    _, (rows, _) = sample_mixture([900, 100], [1, 1], 100, 10)
    assert all(30 < count < 70 for count in (rows.reshape(10, 100) >= 900).sum(1))
    assert rows[:100].tolist() != sample_mixture([900, 100], [1, 1], 100, 1, seed=2)[1].rows.tolist()


def test_a_step_of_a_mixture_does_not_depend_on_earlier_calls() -> None:
    sequential_sampler, _ = sample_mixture([7, 23, 5], [2, 1, 1], 8, 30)
    for step in (29, 0, 13, 12):
        fresh, _ = sample_mixture([7, 23, 5], [2, 1, 1], 8, 1)
        for one, other in zip(fresh.indices_for_step(step), sequential_sampler.indices_for_step(step), strict=True):
            assert one.tolist() == other.tolist()


def test_order_of_a_mixture_is_pinned() -> None:
    assert sample_mixture([8, 4], [1, 1], 12, 1, seed=42)[1].rows.tolist() == PINNED_MIXTURE


PINNED_MIXTURE = [4, 9, 3, 11, 8, 6, 1, 10, 8, 9, 7, 5]
