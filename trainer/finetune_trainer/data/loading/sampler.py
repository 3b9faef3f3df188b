"""Which rows an optimizer step learns from: a function of the seed and the step, whatever the world size.

The data is the endless concatenation of one permutation of all rows for each epoch; step s takes positions s x B to
(s + 1) x B of it. So the position of a run in its data is one integer, and going there costs nothing.

Where rows are in groups of which each has a share (sources with weights, labels to be balanced, what is rehearsed), each has as
many of an epoch's positions as its share says, the same number in every epoch and spread at random. A group's own rows come as
the endless concatenation of its permutations: a small group is passed through several times an epoch, a large one once in
several epochs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class SampledIndices(NamedTuple):
    """Row indices [n], and in which pass over the data, or over its group's, each is taken [n]."""

    rows: Indices
    epochs: Indices


def total_steps(length: int, batch_size: int, epochs: int | None, max_steps: int | None) -> int:
    """Optimizer steps of a run: `max_steps`, or as many as `epochs` of `length` positions take (one, if both are None)."""
    return max_steps if max_steps is not None else math.ceil(length * (epochs or 1) / batch_size)


class Mixture(NamedTuple):
    """The group of each row [rows], counted from 0, and each group's share, relative to the others'."""

    groups: NDArray[np.int32]
    shares: Sequence[float]


class Sampler:
    """The order of rows in batches of `batch_size`, `length` positions an epoch; a batch may straddle epochs.

    There are as many rows as positions, or as many as the mixture says. No group may be empty.
    """

    def __init__(self, length: int, batch_size: int, seed: int, mixture: Mixture | None = None) -> None:
        assert length > 0, "there is no order of nothing"
        self._length = length
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._picks = SampledIndices(np.empty(0, np.int64), np.empty(0, np.int64))
        mixture = mixture or Mixture(np.zeros(length, np.int32), [1.0])
        by_group = np.argsort(mixture.groups, kind="stable")
        self._groups: list[Indices] = np.split(by_group, np.cumsum(np.bincount(mixture.groups))[:-1])
        self._quotas = quotas(mixture.shares, length)

    def indices_for_step(self, step: int) -> SampledIndices:
        """The `batch_size` rows of the step, counted from 0."""
        positions = np.arange(step * self._batch_size, (step + 1) * self._batch_size, dtype=np.int64)
        epochs, places = np.divmod(positions, self._length)
        parts = [(self._of_epoch(int(epoch)), places[epochs == epoch]) for epoch in np.unique(epochs)]
        return SampledIndices(*(np.concatenate([picks[column][chosen] for picks, chosen in parts]) for column in (0, 1)))

    def epoch_at(self, step: int) -> float:
        """Passes over the data after `step` finished steps."""
        return step * self._batch_size / self._length

    def _of_epoch(self, epoch: int) -> SampledIndices:
        """All positions of the epoch."""
        if epoch != self._epoch:
            groups = [self._of_group(number, epoch) for number in range(len(self._groups))]
            rows, passes = (np.concatenate(column) for column in zip(*groups, strict=True))
            if len(groups) > 1:  # they would come one after the other
                mixed = self._permutation(self._length, epoch, len(groups))
                rows, passes = rows[mixed], passes[mixed]
            self._picks, self._epoch = SampledIndices(rows, passes), epoch
        return self._picks

    def _of_group(self, number: int, epoch: int) -> SampledIndices:
        """The group's part of the epoch: the next so many of its own endless order."""
        members, quota = self._groups[number], self._quotas[number]
        positions = np.arange(epoch * quota, (epoch + 1) * quota, dtype=np.int64)
        passes, places = np.divmod(positions, len(members))
        orders = {one: members[self._permutation(len(members), one, number)] for one in np.unique(passes).tolist()}
        rows = [order[places[passes == one]] for one, order in orders.items()]
        return SampledIndices(np.concatenate(rows), passes)

    def _permutation(self, count: int, time: int, purpose: int) -> Indices:
        # The raw stream of a bit generator is the same in every version of NumPy; Generator.permutation is not.
        key = np.array([self._seed, purpose << 40 | time], dtype=np.uint64)
        return np.argsort(np.random.Philox(key=key).random_raw(count), kind="stable")


def quotas(shares: Sequence[float], length: int) -> list[int]:
    """How many of an epoch's positions each group has: by its share, rounded so that none is lost, and at least one."""
    exact = np.asarray(shares) / np.sum(shares) * length
    found = np.floor(exact).clip(min=1).astype(np.int64)
    while (missing := length - int(found.sum())) > 0:  # largest remainders first, of which there are enough at once
        found[np.argsort(found - exact, kind="stable")[:missing]] += 1
    while found.sum() > length:  # what groups of less than one position were given
        found[found.argmax()] -= 1
    return [int(count) for count in found]


def sequential(rows: int, batch_size: int) -> Iterator[SampledIndices]:
    """Every row once, in order, `batch_size` at a time; the last batch may be smaller."""
    for start in range(0, rows, batch_size):
        taken = np.arange(start, min(start + batch_size, rows), dtype=np.int64)
        yield SampledIndices(taken, np.zeros_like(taken))


def split_across_ranks(picks: SampledIndices, rank: int, size: int, micro_batch_size: int) -> list[SampledIndices]:
    """The micro-batches of one rank: all ranks' together are `picks`, each once.

    Every rank gets the same number of micro-batches, as the collectives in a model need, of sizes that differ by one at most;
    where the batch does not come out even, some may be empty.
    """
    count = math.ceil(len(picks.rows) / (size * micro_batch_size))
    mine = slice(rank * count, (rank + 1) * count)
    rows, epochs = (np.array_split(column, count * size)[mine] for column in picks)
    return [SampledIndices(*both) for both in zip(rows, epochs, strict=True)]
