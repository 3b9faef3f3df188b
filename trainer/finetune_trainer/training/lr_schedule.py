"""The learning rate, and which layers move, as pure functions of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from finetune_trainer.config import ScheduleConfig, UnfreezeConfig


def warmup_steps(schedule: ScheduleConfig, total_steps: int) -> int:
    """Steps of linear warm-up, never more than there are steps."""
    steps = schedule.warmup_steps if schedule.warmup_steps is not None else round((schedule.warmup_ratio or 0) * total_steps)
    return min(steps, total_steps)


def factor(schedule: ScheduleConfig, step: int, total_steps: int) -> float:
    """What the peak learning rate is multiplied with at the given step.

    `step` counts from 1: it is the number of the step being taken. The first step of a warm-up already moves, the last step
    of the run has `minimum_ratio` (Linear, Cosine), and a run within its warm-up has reached the peak at its last step.
    """
    warmup = warmup_steps(schedule, total_steps)
    if step <= warmup:
        return step / warmup
    if schedule.type == "Constant" or total_steps <= warmup + 1:
        return 1.0
    # The first step after the warm-up has the peak still; the decay is spread over the steps that follow it.
    done = (step - max(warmup, 1)) / (total_steps - max(warmup, 1))
    decay = 1 - done if schedule.type == "Linear" else (1 + math.cos(math.pi * done)) / 2
    return schedule.minimum_ratio + (1 - schedule.minimum_ratio) * decay


def lowest_depth(unfreeze: UnfreezeConfig, step: int, head: int) -> int:
    """The depth from which on weights move at the given step, counted from 1: at first that of the head, at last 0."""
    return max(0, head - (step - 1) // unfreeze.every_steps)
