"""The steps of a run, counted or estimated."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import tiny
from tests.support.previews import preview

from finetune_trainer.config import TrainSpec
from finetune_trainer.preview.report import SampledSource
from finetune_trainer.preview.run_length import run_length

TRAIN = preview().train  # 500 sequences of 480,000 tokens, from 2,000 rows


def spec(**training: Any) -> TrainSpec:
    return tiny.spec(training={"maxSteps": None} | training)


def sampled(total: int | None) -> list[SampledSource]:
    return [SampledSource(field="data.train[0]", rows=2000, total=total)]


def test_all_rows_give_the_exact_steps() -> None:
    run = run_length(spec(epochs=3), 500, TRAIN, [])
    assert (run.steps, run.steps_per_epoch, run.epochs, run.tokens_per_step) == (188, 62.5, 3, 7680)
    assert (run.is_estimate, run.is_lower_bound, run.tokens) == (False, False, 188 * 7680)


def test_a_sample_is_scaled_to_all_rows() -> None:
    run = run_length(spec(epochs=3), 500, TRAIN, sampled(10_000))
    assert (run.steps, run.is_estimate, run.is_lower_bound) == (938, True, False)


@pytest.mark.parametrize(("max_steps", "is_lower_bound"), [(None, True), (40, False)])
def test_without_a_total_the_steps_of_epochs_are_a_lower_bound(max_steps: int | None, is_lower_bound: bool) -> None:
    run = run_length(
        spec(epochs=1, maxSteps=max_steps) if max_steps is None else spec(maxSteps=max_steps), 500, TRAIN, sampled(None)
    )
    assert (run.steps, run.is_lower_bound) == (max_steps or 63, is_lower_bound)


def test_sampled_evaluation_data_does_not_change_the_steps() -> None:
    run = run_length(spec(epochs=1), 500, TRAIN, [SampledSource(field="data.evaluation[0]", rows=10)])
    assert (run.steps, run.is_estimate) == (63, False)
