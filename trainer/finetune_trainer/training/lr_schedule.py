"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler state.

The rates are those of transformers' schedules "constant_with_warmup", "linear", "cosine" and "cosine_with_min_lr".
"""

from __future__ import annotations

import math

from finetune_trainer.config import ScheduleConfig


def warmup_steps(schedule: ScheduleConfig, total_steps: int) -> int:
    """The number of linear warm-up steps; it may exceed `total_steps`."""
    if schedule.warmup_steps is not None:
        return schedule.warmup_steps
    return math.ceil((schedule.warmup_ratio or 0) * total_steps)


def learning_rate_factor(schedule: ScheduleConfig, step: int, total_steps: int) -> float:
    """The learning rate of a step as a fraction of the peak learning rate.

    `step` is the number of the step being taken and counts from 1. As in transformers, the rate follows from the steps taken
    before: the first step of a warm-up has rate 0, the first step after it the peak rate, and the decay would reach
    `minimum_ratio` (Linear, Cosine) one step after the last.
    """
    taken = step - 1
    warmup = warmup_steps(schedule, total_steps)
    if taken < warmup:
        return taken / warmup
    if schedule.type == "Constant":
        return 1.0
    remaining = (total_steps - taken) / (total_steps - warmup)
    decay = remaining if schedule.type == "Linear" else (1 + math.cos(math.pi * (1 - remaining))) / 2
    return schedule.minimum_ratio + (1 - schedule.minimum_ratio) * decay


def warmup_warning(schedule: ScheduleConfig, total_steps: int) -> str | None:
    """A sentence for a run that ends before it reaches the peak learning rate; None if it reaches it."""
    warmup = warmup_steps(schedule, total_steps)
    if warmup < total_steps:
        return None
    field = "warmupRatio" if schedule.warmup_steps is None else "warmupSteps"
    share = learning_rate_factor(schedule, total_steps, total_steps)
    return (
        f"spec.training.schedule.{field}: the warm-up of {warmup} steps is not over at the run's last step, {total_steps}, "
        f"whose learning rate is {share:.0%} of the peak: shorten the warm-up, or train longer"
    )
