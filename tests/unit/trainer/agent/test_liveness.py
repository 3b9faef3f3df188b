"""When a rank counts as hanging: its phase, its own steps and the other ranks decide."""

from __future__ import annotations

import math

import pytest

from finetune_trainer.agent.liveness import Liveness
from finetune_trainer.config.hang_limits import HangLimits
from finetune_trainer.protocol.events import Activity, Alive, Beat, StepTime

NEVER = -math.inf
LIMITS = HangLimits(start_seconds=100, step_seconds=10, evaluation_seconds=50, save_seconds=70)
STEP = StepTime(seconds=1.0, data_wait_seconds=0.0)


def alive(activity: Activity, now: float = 0.0) -> Liveness:
    life = Liveness(LIMITS, 0.0)
    life.observe(Alive(activity=activity), now)
    return life


@pytest.mark.parametrize(
    ("activity", "limit", "field"),
    [
        ("Starting", 100, "start_seconds"),
        ("Preparing", 100, "start_seconds"),
        ("Loading", 100, "start_seconds"),
        ("Training", 100, "start_seconds"),  # the first step compiles kernels
        ("Evaluating", 50, "evaluation_seconds"),
        ("Saving", 70, "save_seconds"),
        ("Exporting", 70, "save_seconds"),
    ],
)
def test_each_phase_has_its_limit(activity: Activity, limit: float, field: str) -> None:
    life = alive(activity)
    assert (life.limit, life.limit_field) == (limit, field)
    assert not life.hangs(limit - 0.1, NEVER)
    assert life.hangs(limit, NEVER)


def test_the_step_limit_applies_after_the_first_step() -> None:
    life = alive("Training")
    life.observe(STEP, 90.0)
    assert (life.limit, life.limit_field) == (10 * 90, "step_seconds")  # it has seen no other step yet
    for second in range(1, 20):
        life.observe(STEP, 90.0 + second)
    assert life.limit == 10
    assert not life.hangs(118.9, NEVER)
    assert life.hangs(119.0, NEVER)


def test_the_step_limit_grows_with_silences_within_steps() -> None:
    life, now = alive("Training"), 0.0
    for _ in range(40):
        for _ in range(8):  # eight micro-batches of three seconds, and three seconds more for the optimizer step
            now += 3.0
            life.observe(Beat(), now)
        now += 3.0
        life.observe(STEP, now)
    assert life.limit == 30
    assert not life.hangs(now + 29.9, NEVER)


def test_an_evaluation_between_steps_does_not_raise_the_step_limit() -> None:
    life, now = alive("Training"), 0.0
    for _ in range(40):
        life.observe(STEP, now := now + 1.0)
        life.observe(Alive(activity="Evaluating"), now)
        life.observe(Alive(activity="Training"), now := now + 40.0)
    assert life.limit == 10


def test_a_rank_that_may_wait_is_alive_as_long_as_another_works() -> None:
    for activity, may_wait in (("Starting", False), ("Preparing", False), ("Loading", True), ("Saving", True)):
        life = alive(activity)
        assert life.hangs(200.0, peers_alive_at=190.0) is not may_wait
        assert life.hangs(290.0, peers_alive_at=190.0)
