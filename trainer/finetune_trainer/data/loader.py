"""Micro-batches made ahead of time in a thread, so that the device never waits for them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import torch

from finetune_trainer.data.collate import Batch, PackedAs, collate
from finetune_trainer.data.order import Indices, share
from finetune_trainer.data.rows import Rows

AHEAD = 4  # steps that are ready before they are asked for


@dataclass(frozen=True)
class Maker:
    """Makes this rank's micro-batches [of at most `micro_batch_size` rows] from the rows of one step."""

    rows: Rows
    rank: int
    size: int
    micro_batch_size: int
    pad_id: int
    packed_as: PackedAs | None = None
    dtype: torch.dtype = torch.float32
    pin: bool = field(default_factory=torch.cuda.is_available)

    def __call__(self, indices: Indices) -> list[Batch]:
        """The micro-batches, as many on every rank."""
        return [self._collate(part) for part in share(indices, self.rank, self.size, self.micro_batch_size)]

    def _collate(self, indices: Indices) -> Batch:
        rows = [self.rows[int(index)] for index in indices]
        batch = collate(rows, self.pad_id, packed_as=self.packed_as, dtype=self.dtype)
        return {name: tensor.pin_memory() for name, tensor in batch.items()} if self.pin else batch


class Prefetched(Iterator[list[Batch]]):
    """The micro-batches of each step, made `AHEAD` steps early in a thread.

    What the thread raises is raised by `next`. Close it when it is left early: it is a context manager, and the garbage
    collector does it too.
    """

    def __init__(self, make: Maker, steps: Iterable[Indices]) -> None:
        self._ready: queue.Queue[list[Batch] | BaseException] = queue.Queue(AHEAD)
        self._closed = threading.Event()
        # The thread must not hold the iterator itself, or nobody could ever lose it.
        work = partial(_work, make, iter(steps), self._ready, self._closed)
        threading.Thread(target=work, name="batches", daemon=True).start()

    def __next__(self) -> list[Batch]:
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


def _work(
    make: Maker, steps: Iterator[Indices], ready: queue.Queue[list[Batch] | BaseException], closed: threading.Event
) -> None:
    try:
        for indices in steps:
            if not _put(ready, make(indices), closed):
                return
        _put(ready, StopIteration(), closed)
    except BaseException as error:
        _put(ready, error, closed)


def _put(ready: queue.Queue[list[Batch] | BaseException], item: list[Batch] | BaseException, closed: threading.Event) -> bool:
    """Whether the item found room before the iterator was closed."""
    while not closed.is_set():
        try:
            ready.put(item, timeout=0.2)
            return True
        except queue.Full:
            continue
    return False
