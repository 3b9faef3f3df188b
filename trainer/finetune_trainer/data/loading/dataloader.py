"""Builds micro-batches ahead of time in a thread, so that the device does not wait for them."""

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

PREFETCH_STEPS = 4


class Collator(Protocol):
    """The part of an objective that builds micro-batches."""

    def collate(self, samples: Sequence[Sample], generators: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """A micro-batch; each sample has its own random numbers, which do not depend on the rank."""
        ...

    def count_terms(self, batch: Batch) -> Sequence[float]:
        """The number of terms in each of the batch's losses."""
        ...


class MicroBatch(NamedTuple):
    """The batch of one forward pass of a rank, and its size."""

    batch: Batch
    terms: Sequence[float]
    """The number of terms of each of the objective's losses."""
    tokens: int
    """Tokens without padding; for samples without tokens, the number of samples."""
    positions: int
    """Tokens with padding; for samples without tokens, the number of samples."""
    rows: Sequence[int] = ()
    """The indices of its samples in the prepared data."""


QueueItem = list[MicroBatch] | BaseException  # a step's micro-batches, or the reason why there are no more


@dataclass(frozen=True)
class BatchBuilder:
    """Builds this rank's micro-batches, of at most `micro_batch_size` samples, from the sampled indices of a step."""

    rows: ArrowDataset
    collator: Collator
    layout: Layout
    rank: int
    size: int
    micro_batch_size: int
    seed: int
    pin: bool = field(default_factory=torch.cuda.is_available)

    def __call__(self, indices: SampledIndices) -> list[MicroBatch]:
        """The micro-batches of the step; every rank has the same number."""
        parts = split_across_ranks(indices, self.rank, self.size, self.micro_batch_size)
        return [self._build(part) for part in parts]

    def _build(self, indices: SampledIndices) -> MicroBatch:
        samples, generators = [], []
        for row, epoch in zip(*indices, strict=True):
            samples.append(self.rows[int(row)])
            generators.append(sample_generator(self.seed, int(epoch), int(row)))
        batch = self.collator.collate(samples, generators, self.layout)
        terms = self.collator.count_terms(batch)
        if self.pin:
            batch = batch.pin_memory()
        tokens = sum(len(sample[TOKENS]) for sample in samples if TOKENS in sample)
        positions = batch.inputs[TOKENS].numel() if TOKENS in batch.inputs else len(samples)
        return MicroBatch(batch, terms, tokens or len(samples), positions, indices.rows.tolist())


def sample_generator(seed: int, epoch: int, row: int) -> np.random.Generator:
    """Random numbers for masks, noise and augmentation of one row in one epoch, equal at every world size."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, epoch << 40 | row], dtype=np.uint64)))


class PrefetchLoader(Iterator[list[MicroBatch]]):
    """Iterates over the micro-batches of each step; a thread builds them up to `PREFETCH_STEPS` steps ahead.

    `next` raises the errors of the thread. If iteration ends early, close the loader: it is a context manager, and garbage
    collection closes it as well.
    """

    def __init__(self, builder: BatchBuilder, steps: Iterable[SampledIndices]) -> None:
        self._queue: queue.Queue[QueueItem] = queue.Queue(PREFETCH_STEPS)
        self._closed = threading.Event()
        # The thread must not reference this iterator, which could otherwise never be garbage-collected.
        work = partial(_fill_queue, builder, iter(steps), self._queue, self._closed)
        threading.Thread(target=work, name="batches", daemon=True).start()

    def __next__(self) -> list[MicroBatch]:
        if self._closed.is_set():
            raise StopIteration
        item = self._queue.get()
        if isinstance(item, BaseException):
            self._closed.set()
            raise item
        return item

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _fill_queue(
    builder: BatchBuilder, steps: Iterator[SampledIndices], items: queue.Queue[QueueItem], closed: threading.Event
) -> None:
    try:
        for indices in steps:
            if not _put(items, builder(indices), closed):
                return
        _put(items, StopIteration(), closed)
    except BaseException as error:
        _put(items, error, closed)


def _put(items: queue.Queue[QueueItem], item: QueueItem, closed: threading.Event) -> bool:
    """Add the item when the queue has room; returns False if the iterator is closed first."""
    while not closed.is_set():
        try:
            items.put(item, timeout=0.2)
            return True
        except queue.Full:
            continue
    return False
