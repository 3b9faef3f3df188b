"""Micro-batches made ahead of time in a thread, so that the device never waits for them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch

from finetune_trainer.data.loading.collate import Batch, Layout
from finetune_trainer.data.loading.dataset import TOKENS, ArrowDataset, Sample
from finetune_trainer.data.loading.sampler import SampledIndices, split_across_ranks

AHEAD = 4  # steps that are ready before they are asked for


class Collator(Protocol):
    """What making micro-batches asks of an objective."""

    def collate(self, samples: Sequence[Sample], generators: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """A micro-batch; each row comes with its own random numbers, the same whoever makes it."""
        ...

    def count_terms(self, batch: Batch) -> Sequence[float]:
        """Number of terms in each of the batch's losses."""
        ...


class MicroBatch(NamedTuple):
    """What a rank computes at once, and what is known of it beforehand."""

    batch: Batch
    terms: Sequence[float]
    """Of each of the objective's losses."""
    tokens: int
    positions: int
    """Tokens and padding; for rows without tokens both count rows."""


Item = list[MicroBatch] | BaseException  # a step's micro-batches, or why there are no more


@dataclass(frozen=True)
class BatchBuilder:
    """Makes this rank's micro-batches [of at most `micro_batch_size` rows] from the rows of one step."""

    rows: ArrowDataset
    collator: Collator
    layout: Layout
    rank: int
    size: int
    micro_batch_size: int
    seed: int
    pin: bool = field(default_factory=torch.cuda.is_available)

    def __call__(self, picks: SampledIndices) -> list[MicroBatch]:
        """The micro-batches, as many on every rank."""
        return [self._make(part) for part in split_across_ranks(picks, self.rank, self.size, self.micro_batch_size)]

    def _make(self, picks: SampledIndices) -> MicroBatch:
        rows = [self.rows[int(index)] for index in picks.rows]
        randoms = [sample_generator(self.seed, int(epoch), int(row)) for row, epoch in zip(*picks, strict=True)]
        batch = self.collator.collate(rows, randoms, self.layout)
        terms = self.collator.count_terms(batch)
        if self.pin:
            batch = batch.pin_memory()
        tokens = sum(len(row[TOKENS]) for row in rows if TOKENS in row)
        return MicroBatch(
            batch, terms, tokens or len(rows), batch.inputs[TOKENS].numel() if TOKENS in batch.inputs else len(rows)
        )


def sample_generator(seed: int, epoch: int, row: int) -> np.random.Generator:
    """Random numbers of one row in one pass over the data, whatever the world size: for masks, noise and augmentation."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, epoch << 40 | row], dtype=np.uint64)))


class PrefetchLoader(Iterator[list[MicroBatch]]):
    """The micro-batches of each step, made `AHEAD` steps early in a thread.

    What the thread raises is raised by `next`. Close it when it is left early: it is a context manager, and the garbage
    collector does it too.
    """

    def __init__(self, make: BatchBuilder, steps: Iterable[SampledIndices]) -> None:
        self._ready: queue.Queue[Item] = queue.Queue(AHEAD)
        self._closed = threading.Event()
        # The thread must not hold the iterator itself, or nobody could ever lose it.
        work = partial(_work, make, iter(steps), self._ready, self._closed)
        threading.Thread(target=work, name="batches", daemon=True).start()

    def __next__(self) -> list[MicroBatch]:
        if self._closed.is_set():
            raise StopIteration
        item = self._ready.get()
        if isinstance(item, BaseException):
            self._closed.set()
            raise item
        return item

    def close(self) -> None:
        """Let the thread end."""
        self._closed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _work(make: BatchBuilder, steps: Iterator[SampledIndices], ready: queue.Queue[Item], closed: threading.Event) -> None:
    try:
        for picks in steps:
            if not _put(ready, make(picks), closed):
                return
        _put(ready, StopIteration(), closed)
    except BaseException as error:
        _put(ready, error, closed)


def _put(ready: queue.Queue[Item], item: Item, closed: threading.Event) -> bool:
    """Whether the item found room before the iterator was closed."""
    while not closed.is_set():
        try:
            ready.put(item, timeout=0.2)
            return True
        except queue.Full:
            continue
    return False
