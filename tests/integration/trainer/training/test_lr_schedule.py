"""Every learning rate of a run equals that of transformers' schedule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import TrainingArguments, get_scheduler

from finetune_trainer.config import ScheduleConfig
from finetune_trainer.training.lr_schedule import learning_rate_factor

NAMES = {"Constant": "constant_with_warmup", "Linear": "linear", "Cosine": "cosine"}


def transformers_rates(name: str, warmup: int, total: int, options: dict[str, Any] | None = None) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(
        name, optimizer, num_warmup_steps=warmup, num_training_steps=total, scheduler_specific_kwargs=options
    )
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def rates_of(schedule: dict[str, Any], total: int) -> list[float]:
    parsed = ScheduleConfig.model_validate(schedule)
    return [learning_rate_factor(parsed, step, total) for step in range(1, total + 1)]


@pytest.mark.parametrize("warmup", [0, 1, 3, 9, 10, 25])
@pytest.mark.parametrize("total", [1, 2, 10])
@pytest.mark.parametrize("kind", NAMES)
def test_equals_transformers_at_every_step(kind: str, total: int, warmup: int) -> None:
    found = rates_of({"type": kind, "warmupSteps": warmup}, total)
    assert found == pytest.approx(transformers_rates(NAMES[kind], warmup, total), abs=1e-12)


@pytest.mark.parametrize("warmup", [0, 3])
def test_equals_transformers_with_a_minimum(warmup: int) -> None:
    found = rates_of({"type": "Cosine", "warmupSteps": warmup, "minimumRatio": 0.1}, 10)
    assert found == pytest.approx(transformers_rates("cosine_with_min_lr", warmup, 10, {"min_lr_rate": 0.1}), abs=1e-12)


@pytest.mark.parametrize("ratio", [0.05, 0.25, 0.3])
def test_rounds_the_warm_up_as_transformers_does(ratio: float) -> None:
    warmup = TrainingArguments("unused", warmup_steps=ratio, report_to=[]).get_warmup_steps(10)
    assert rates_of({"warmupRatio": ratio}, 10) == pytest.approx(transformers_rates("linear", warmup, 10), abs=1e-12)


def test_two_linear_steps_move_one_and_a_half_times_the_rate() -> None:
    assert sum(rates_of({"type": "Linear"}, 2)) == 1.5
