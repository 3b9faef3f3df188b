"""Run an action on one rank or on all of them, and let every rank agree on its result or its error."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.protocol.outcome import TrainerError

T = TypeVar("T")


def on_first_rank(group: ProcessGroup, action: Callable[[], T]) -> T:
    """Run `action` on rank 0 and return its result on every rank.

    A TrainerError of `action` is raised on every rank, so that no rank waits in a later collective.
    """
    result: T | None = None
    error: TrainerError | None = None
    if group.is_first:
        try:
            result = action()
        except TrainerError as failure:
            error = failure
    result, error = group.broadcast((result, error))
    if error:
        raise error
    return cast(T, result)


def on_every_rank(group: ProcessGroup, action: Callable[[], T]) -> T:
    """Run `action` on every rank and return each rank's own result; if one rank raises a TrainerError, all ranks raise."""
    result: T | None = None
    error: TrainerError | None = None
    try:
        result = action()
    except TrainerError as failure:
        error = failure
    if group.any(error is not None):
        raise error or TrainerError("another rank failed; its log has the error")
    return cast(T, result)
