"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from finetune_trainer.config import ScheduleConfig


def warmup_steps(schedule: ScheduleConfig, total_steps: int) -> int:
    """The number of linear warm-up steps, at most `total_steps`."""
    if schedule.warmup_steps is not None:
        return min(schedule.warmup_steps, total_steps)
    return min(round((schedule.warmup_ratio or 0) * total_steps), total_steps)


def learning_rate_factor(schedule: ScheduleConfig, step: int, total_steps: int) -> float:
    """The learning rate of a step as a fraction of the peak learning rate.

    `step` is the number of the step being taken and counts from 1. The first warm-up step has a rate above 0. The last step of
    the run has `minimum_ratio` (Linear, Cosine). A run that ends during its warm-up reaches the peak at its last step.
    """
    warmup = warmup_steps(schedule, total_steps)
    if step <= warmup:
        return step / warmup
    if schedule.type == "Constant" or total_steps <= warmup + 1:
        return 1.0
    # The first step after the warm-up still has the peak rate; the decay spreads over the steps that follow it.
    done = (step - max(warmup, 1)) / (total_steps - max(warmup, 1))
    decay = 1 - done if schedule.type == "Linear" else (1 + math.cos(math.pi * done)) / 2
    return schedule.minimum_ratio + (1 - schedule.minimum_ratio) * decay
