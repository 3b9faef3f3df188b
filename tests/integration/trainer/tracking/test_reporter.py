"""The events of a rank, their frequency, and the reported speed and remaining time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.protocol.events import Event, Step, StepTime
from finetune_trainer.tracking.reporter import FinishedStep, Reporter


def events_of(durations: Sequence[float], *, rank: int = 0, log_every: int = 1000, idle: float = 0.0) -> list[Event]:
    """The events of steps with these durations and 10 tokens each; the clock advances by `idle` after each step."""
    now = 100.0
    events: list[Event] = []
    group = ProcessGroup(rank, 2, rank, 2, torch.device("cpu"))
    reporter = Reporter(
        events.append, group, total_steps=len(durations), steps_per_epoch=4, log_every=log_every, clock=lambda: now
    )
    for step, seconds in enumerate(durations, start=1):
        now += seconds
        reporter.step_finished(
            FinishedStep(
                step=step, loss=1.0, gradient_norm=2.0, learning_rate=0.1, tokens=10, samples=2, padding_ratio=0.25,
                seconds=seconds, forward_seconds=0.1, data_wait_seconds=seconds / 10,
            )
        )  # fmt: skip
        now += idle
    return events


@pytest.mark.parametrize(
    ("duration", "log_every", "steps"),
    [
        (1.0, 1000, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (0.0625, 1000, [1, 5, 9, 10]),
        (0.0625, 5, [1, 5, 9, 10]),
        (0.0625, 3, [1, 3, 6, 9, 10]),
    ],
)
def test_aggregates_fast_steps(duration: float, log_every: int, steps: list[int]) -> None:
    events = [event for event in events_of([duration] * 10, log_every=log_every) if isinstance(event, Step)]
    assert [event.progress.step for event in events] == steps
    assert sum(event.tokens for event in events) == 100
    assert sum(event.samples for event in events) == 20


def test_other_ranks_report_only_their_durations() -> None:
    events = events_of([1.0] * 3, rank=1)
    assert [type(event) for event in events] == [StepTime] * 3
    times = [event for event in events_of([0.0625] * 10, rank=1) if isinstance(event, StepTime)]
    assert len(times) < sum(event.steps for event in times) == 10
    assert sum(event.seconds for event in times) == pytest.approx(0.625)
    assert sum(event.data_wait_seconds for event in times) == pytest.approx(0.0625)


@pytest.mark.parametrize("idle", [0.0, 30.0])
def test_speed_and_remaining_time_follow_recent_steps(idle: float) -> None:
    events = [event for event in events_of([9.0] * 5 + [2.0] * 30 + [2.0] * 5, idle=idle) if isinstance(event, Step)]
    progress = next(event.progress for event in events if event.progress.step == 35)
    assert progress.tokens_per_second == pytest.approx(5)
    assert progress.remaining_seconds == 10
    assert progress.percent == 87
    assert progress.epoch == pytest.approx(35 / 4)
