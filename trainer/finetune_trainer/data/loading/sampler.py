"""Samples the rows of each optimizer step: a function of the seed and the step, independent of the world size.

The data is the endless concatenation of one permutation of all rows for each epoch; step s takes positions s x B to
(s + 1) x B of it. The position of a run in its data is therefore one integer, and a run resumes there at no cost.

If rows form groups with shares (weighted sources, balanced labels, replay), each group has as many of an epoch's positions as
its share gives it, the same number in every epoch, at random positions. The rows of a group come from the endless
concatenation of its own permutations: a small group is repeated within an epoch, a large one spans several epochs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class SampledIndices(NamedTuple):
    """Row indices [n], and the pass over the data, or over the row's group, in which each is taken [n]."""

    rows: Indices
    epochs: Indices


def total_steps(length: int, batch_size: int, epochs: int | None, max_steps: int | None) -> int:
    """The optimizer steps of a run: `max_steps`, or the steps of `epochs` epochs of `length` positions (1 if both are None)."""
    return max_steps if max_steps is not None else math.ceil(length * (epochs or 1) / batch_size)


class Mixture(NamedTuple):
    """The group of each row [rows], counted from 0, and the relative share of each group."""

    groups: NDArray[np.int32]
    shares: Sequence[float]


class Sampler:
    """Samples rows in batches of `batch_size`, with `length` positions an epoch; a batch may span epochs.

    Without a mixture there are as many rows as positions. No group may be empty.
    """

    def __init__(self, length: int, batch_size: int, seed: int, mixture: Mixture | None = None) -> None:
        assert length > 0, "a sampler needs at least one row"
        self._length = length
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._epoch_indices = SampledIndices(np.empty(0, np.int64), np.empty(0, np.int64))
        mixture = mixture or Mixture(np.zeros(length, np.int32), [1.0])
        by_group = np.argsort(mixture.groups, kind="stable")
        self._groups: list[Indices] = np.split(by_group, np.cumsum(np.bincount(mixture.groups))[:-1])
        self._quotas = quotas(mixture.shares, length)

    def indices_for_step(self, step: int) -> SampledIndices:
        """The `batch_size` rows of the step, counted from 0."""
        positions = np.arange(step * self._batch_size, (step + 1) * self._batch_size, dtype=np.int64)
        epochs, offsets = np.divmod(positions, self._length)
        rows, passes = [], []
        for epoch in np.unique(epochs):
            indices = self._indices_for_epoch(int(epoch))
            in_epoch = offsets[epochs == epoch]
            rows.append(indices.rows[in_epoch])
            passes.append(indices.epochs[in_epoch])
        return SampledIndices(np.concatenate(rows), np.concatenate(passes))

    def epoch_at(self, step: int) -> float:
        """Epochs completed after `step` steps."""
        return step * self._batch_size / self._length

    def _indices_for_epoch(self, epoch: int) -> SampledIndices:
        """All positions of the epoch; the last epoch is cached."""
        if epoch != self._epoch:
            groups = [self._indices_for_group(number, epoch) for number in range(len(self._groups))]
            rows = np.concatenate([group.rows for group in groups])
            passes = np.concatenate([group.epochs for group in groups])
            if len(groups) > 1:  # shuffle, as the groups follow each other
                shuffled = self._permutation(self._length, epoch, len(groups))
                rows, passes = rows[shuffled], passes[shuffled]
            self._epoch_indices, self._epoch = SampledIndices(rows, passes), epoch
        return self._epoch_indices

    def _indices_for_group(self, number: int, epoch: int) -> SampledIndices:
        """The group's rows in the epoch: the next `quota` rows of its own endless order."""
        members, quota = self._groups[number], self._quotas[number]
        positions = np.arange(epoch * quota, (epoch + 1) * quota, dtype=np.int64)
        passes, offsets = np.divmod(positions, len(members))
        rows = []
        for index in np.unique(passes).tolist():
            order = members[self._permutation(len(members), index, number)]
            rows.append(order[offsets[passes == index]])
        return SampledIndices(np.concatenate(rows), passes)

    def _permutation(self, count: int, index: int, stream: int) -> Indices:
        """The permutation with this index in one stream of random numbers; groups and shuffling have a stream each."""
        # The raw stream of a bit generator is the same in every version of NumPy; Generator.permutation is not.
        key = np.array([self._seed, stream << 40 | index], dtype=np.uint64)
        return np.argsort(np.random.Philox(key=key).random_raw(count), kind="stable")


def quotas(shares: Sequence[float], length: int) -> list[int]:
    """Each group's number of an epoch's positions: by its share, rounded to a total of `length`, and at least one."""
    exact = np.asarray(shares) / np.sum(shares) * length
    rounded = np.floor(exact).clip(min=1).astype(np.int64)
    while (missing := length - int(rounded.sum())) > 0:  # largest remainders first; one pass is enough
        rounded[np.argsort(rounded - exact, kind="stable")[:missing]] += 1
    while rounded.sum() > length:  # take back the minimum of one that small groups received
        rounded[rounded.argmax()] -= 1
    return [int(count) for count in rounded]


def sequential(rows: int, batch_size: int) -> Iterator[SampledIndices]:
    """Every row once, in order, `batch_size` at a time; the last batch may be smaller."""
    for start in range(0, rows, batch_size):
        indices = np.arange(start, min(start + batch_size, rows), dtype=np.int64)
        yield SampledIndices(indices, np.zeros_like(indices))


def split_across_ranks(indices: SampledIndices, rank: int, size: int, micro_batch_size: int) -> list[SampledIndices]:
    """The micro-batches of one rank; all ranks together have each of `indices` once.

    Every rank has the same number of micro-batches, as the collectives in a model require. Their sizes differ by one at most,
    so that some are empty if there are too few rows.
    """
    count = math.ceil(len(indices.rows) / (size * micro_batch_size))
    own = slice(rank * count, (rank + 1) * count)
    rows = np.array_split(indices.rows, count * size)[own]
    epochs = np.array_split(indices.epochs, count * size)[own]
    return [SampledIndices(*part) for part in zip(rows, epochs, strict=True)]
