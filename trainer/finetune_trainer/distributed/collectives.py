"""A rank's place among the others, as checkpoints need it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from finetune_trainer.protocol.outcome import TrainerError

T = TypeVar("T")


class Collectives(Protocol):
    """What checkpoints ask of `finetune_trainer.distributed.process_group.World`; the methods are collective."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def local_rank(self) -> int: ...

    def any(self, flag: bool) -> bool: ...

    def broadcast(self, value: Any) -> Any: ...

    def barrier(self) -> None: ...


def on_first_rank(world: Collectives, action: Callable[[], T]) -> T:
    """What `action` gives on rank 0, on every rank; its TrainerError is raised on every rank, so that none waits for ever."""
    result: T | None = None
    error: TrainerError | None = None
    if world.rank == 0:
        try:
            result = action()
        except TrainerError as failure:
            error = failure
    result, error = world.broadcast((result, error))
    if error:
        raise error
    return cast(T, result)


def on_every_rank(world: Collectives, action: Callable[[], T]) -> T:
    """What `action` gives on each rank; if it raises a TrainerError on one, every rank raises."""
    result: T | None = None
    error: TrainerError | None = None
    try:
        result = action()
    except TrainerError as failure:
        error = failure
    if world.any(error is not None):
        raise error or TrainerError("another rank failed; it says why")
    return cast(T, result)
