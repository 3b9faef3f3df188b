"""The learning rate factor at chosen steps; tests/integration compares all steps with transformers."""

from __future__ import annotations

import pytest

from finetune_trainer.config import ScheduleConfig
from finetune_trainer.training.lr_schedule import learning_rate_factor, warmup_warning


@pytest.mark.parametrize(
    ("schedule", "total", "expected"),
    [
        ({"type": "Constant"}, 4, {1: 1, 4: 1}),
        ({"type": "Constant", "warmupSteps": 4}, 8, {1: 0, 2: 0.25, 4: 0.75, 5: 1, 8: 1}),
        ({"type": "Linear"}, 2, {1: 1, 2: 0.5}),
        ({"type": "Linear"}, 5, {1: 1, 2: 0.8, 3: 0.6, 5: 0.2}),
        ({"type": "Linear", "warmupSteps": 2}, 6, {1: 0, 2: 0.5, 3: 1, 4: 0.75, 6: 0.25}),
        ({"type": "Linear", "warmupRatio": 0.5, "minimumRatio": 0.2}, 4, {1: 0, 2: 0.5, 3: 1, 4: 0.6}),
        ({"type": "Linear", "warmupRatio": 0.3}, 4, {1: 0, 2: 0.5, 3: 1, 4: 0.5}),
        ({"type": "Cosine"}, 4, {1: 1, 2: 0.853553, 3: 0.5, 4: 0.146447}),
        ({"type": "Cosine", "minimumRatio": 0.1}, 2, {1: 1, 2: 0.55}),
        ({"type": "Linear"}, 1, {1: 1}),
        ({"type": "Linear", "warmupSteps": 10}, 4, {1: 0, 4: 0.3}),
        ({"type": "Cosine", "warmupRatio": 1}, 2, {1: 0, 2: 0.5}),
    ],
)
def test_learning_rate_factor(schedule: dict[str, object], total: int, expected: dict[int, float]) -> None:
    parsed = ScheduleConfig.model_validate(schedule)
    assert {step: learning_rate_factor(parsed, step, total) for step in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["Linear", "Cosine"])
def test_never_rises_after_the_warm_up(kind: str) -> None:
    schedule = ScheduleConfig.model_validate({"type": kind, "warmupSteps": 7, "minimumRatio": 0.1})
    factors = [learning_rate_factor(schedule, step, 50) for step in range(8, 51)]
    assert factors == sorted(factors, reverse=True)
    assert factors[0] == 1
    assert factors[-1] > 0.1


def test_warns_of_a_warm_up_that_is_longer_than_the_run() -> None:
    assert warmup_warning(ScheduleConfig.model_validate({"warmupSteps": 100}), 20) == (
        "spec.training.schedule.warmupSteps: the warm-up of 100 steps is not over at the run's last step, 20, whose learning "
        "rate is 19% of the peak: shorten the warm-up, or train longer"
    )
    assert "warmupRatio" in str(warmup_warning(ScheduleConfig.model_validate({"warmupRatio": 1}), 20))
    assert warmup_warning(ScheduleConfig.model_validate({"warmupSteps": 19}), 20) is None
    assert warmup_warning(ScheduleConfig(), 1) is None
