"""Which rows an optimizer step learns from: a function of the seed and the step, whatever the world size.

The data is the endless concatenation of one permutation of all rows for each epoch; step s takes positions s x B to
(s + 1) x B of it. So the position of a run in its data is one integer, and going there costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Picks(NamedTuple):
    """Row indices [n], and in which pass over the data [n] each is taken."""

    rows: Indices
    epochs: Indices


def total_steps(rows: int, batch_size: int, epochs: int | None, max_steps: int | None) -> int:
    """Optimizer steps of a run: `max_steps`, or as many as show every row `epochs` times (once, if both are None)."""
    return max_steps if max_steps is not None else math.ceil(rows * (epochs or 1) / batch_size)


class Order:
    """The order of `rows` rows in batches of `batch_size`; a batch may straddle epochs."""

    def __init__(self, rows: int, batch_size: int, seed: int) -> None:
        assert rows > 0, "there is no order of nothing"
        self._rows = rows
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._permutation: Indices = np.empty(0, np.int64)

    def of_step(self, step: int) -> Picks:
        """The `batch_size` rows of the step, counted from 0."""
        positions = np.arange(step * self._batch_size, (step + 1) * self._batch_size, dtype=np.int64)
        epochs, places = np.divmod(positions, self._rows)
        rows = np.concatenate([self._of_epoch(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)])
        return Picks(rows, epochs)

    def epoch_at(self, step: int) -> float:
        """Passes over the data after `step` finished steps."""
        return step * self._batch_size / self._rows

    def _of_epoch(self, epoch: int) -> Indices:
        if epoch != self._epoch:
            # The raw stream of a bit generator is the same in every version of NumPy; Generator.permutation is not.
            keys = np.random.Philox(key=np.array([self._seed, epoch], dtype=np.uint64)).random_raw(self._rows)
            self._permutation = np.argsort(keys, kind="stable")
            self._epoch = epoch
        return self._permutation


def sequential(rows: int, batch_size: int) -> Iterator[Picks]:
    """Every row once, in order, `batch_size` at a time; the last batch may be smaller."""
    for start in range(0, rows, batch_size):
        taken = np.arange(start, min(start + batch_size, rows), dtype=np.int64)
        yield Picks(taken, np.zeros_like(taken))


def share(picks: Picks, rank: int, size: int, micro_batch_size: int) -> list[Picks]:
    """The micro-batches of one rank: all ranks' together are `picks`, each once.

    Every rank gets the same number of micro-batches, as the collectives in a model need, of sizes that differ by one at most;
    where the batch does not come out even, some may be empty.
    """
    count = math.ceil(len(picks.rows) / (size * micro_batch_size))
    mine = slice(rank * count, (rank + 1) * count)
    rows, epochs = (np.array_split(column, count * size)[mine] for column in picks)
    return [Picks(*both) for both in zip(rows, epochs, strict=True)]
