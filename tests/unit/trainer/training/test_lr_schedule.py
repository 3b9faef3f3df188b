"""The learning rate factor at chosen steps."""

from __future__ import annotations

import pytest

from finetune_trainer.config import ScheduleConfig
from finetune_trainer.training.lr_schedule import learning_rate_factor


@pytest.mark.parametrize(
    ("schedule", "total", "expected"),
    [
        ({"type": "Constant"}, 4, {1: 1, 4: 1}),
        ({"type": "Constant", "warmupSteps": 4}, 8, {1: 0.25, 2: 0.5, 4: 1, 5: 1, 8: 1}),
        ({"type": "Linear"}, 5, {1: 1, 2: 0.75, 3: 0.5, 5: 0}),
        ({"type": "Linear", "warmupSteps": 2}, 6, {1: 0.5, 2: 1, 3: 0.75, 4: 0.5, 6: 0}),
        ({"type": "Linear", "warmupRatio": 0.5, "minimumRatio": 0.2}, 4, {1: 0.5, 2: 1, 3: 0.6, 4: 0.2}),
        ({"type": "Cosine"}, 5, {1: 1, 2: 0.853553, 3: 0.5, 5: 0}),
        ({"type": "Cosine", "minimumRatio": 0.1}, 3, {1: 1, 2: 0.55, 3: 0.1}),
        ({"type": "Linear"}, 1, {1: 1}),
        ({"type": "Linear", "warmupSteps": 10}, 4, {1: 0.25, 4: 1}),
        ({"type": "Cosine", "warmupRatio": 1}, 2, {1: 0.5, 2: 1}),
    ],
)
def test_learning_rate_factor(schedule: dict[str, object], total: int, expected: dict[int, float]) -> None:
    parsed = ScheduleConfig.model_validate(schedule)
    assert {step: learning_rate_factor(parsed, step, total) for step in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["Linear", "Cosine"])
def test_never_rises_after_the_warm_up(kind: str) -> None:
    schedule = ScheduleConfig.model_validate({"type": kind, "warmupSteps": 7, "minimumRatio": 0.1})
    factors = [learning_rate_factor(schedule, step, 50) for step in range(7, 51)]
    assert factors == sorted(factors, reverse=True)
    assert factors[0] == 1
