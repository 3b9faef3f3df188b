"""Training gives the same curve at every world size, gradient accumulation and ZeRO stage, and stops and resumes exactly."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from tests.support import ranks, tiny, training

STEPS = 6
RATES = [0.0, 0.005, 0.01, 0.0075, 0.005, 0.0025]
STAGES = pytest.mark.parametrize(
    "stages", [pytest.param([1, 3], id="stages 1 and 3"), pytest.param([0, 2], id="stages 0 and 2", marks=pytest.mark.slow)]
)


def changes(stage: int, micro: int, **training_changes: Any) -> dict[str, Any]:
    return {
        "deepspeed": {"zeroStage": stage},
        "training": {"maxSteps": STEPS, "microBatchSize": micro, "maxGradientNorm": 0.5, **training_changes},
    }


@pytest.mark.parametrize("size", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_layout_gives_the_same_curve(size: int) -> None:
    cases = [changes(stage, micro) for stage, micro in itertools.product(range(4), {1, 8 // size})]
    cases += [changes(stage, 2, gradientCheckpointing=True) for stage in (0, 3)]
    cases += [changes(3, 2) | {"deepspeed": {"zeroStage": 3, "offload": {"optimizer": "CPU", "parameters": "CPU"}}}]
    _assert_reference_curve("llama", size, cases)


@STAGES
def test_tied_weights_give_the_same_curve(stages: list[int]) -> None:
    _assert_reference_curve("gpt2", 2, [changes(stage, 1) for stage in stages])


def _assert_reference_curve(model: str, size: int, cases: list[dict[str, Any]]) -> None:
    expected = training.reference_curve(getattr(tiny, model)(), tiny.spec(**cases[0]), RATES)
    for case, curve in zip(cases, ranks.run(training.loss_curves, size, model, cases)[0], strict=True):
        for point, expected_point in zip(curve, expected, strict=True):
            assert point == pytest.approx(expected_point, rel=1e-4), case


@STAGES
def test_bfloat16_stays_close_to_float32(stages: list[int]) -> None:
    cases = [changes(stage, 1, precision="BFloat16") for stage in stages]
    expected = training.reference_curve(tiny.llama(), tiny.spec(**cases[0]), RATES)
    for case, curve in zip(cases, ranks.run(training.loss_curves, 2, "llama", cases)[0], strict=True):
        for (loss, norm), (expected_loss, expected_norm) in zip(curve, expected, strict=True):
            assert loss == pytest.approx(expected_loss, rel=3e-3), case
            assert norm == pytest.approx(expected_norm, rel=5e-2), case


@STAGES
def test_a_non_finite_loss_ends_the_run(stages: list[int]) -> None:
    diverging = {"optimizer": {"learningRate": 1e30}, "schedule": {"type": "Constant"}, "maxGradientNorm": 0, "maxSteps": 20}
    cases: list[dict[str, Any]] = [{"training": diverging, "deepspeed": {"zeroStage": stage}} for stage in stages]
    cases.append({"training": diverging | {"precision": "BFloat16"}, "deepspeed": {"zeroStage": stages[0] + 1}})
    results = ranks.run(training.non_finite_errors, 2, cases)
    assert results[0] == results[1], "the ranks disagreed"
    for case, (sentence, saved) in zip(cases, results[0], strict=True):
        expected_start = r"step \d+: (the loss|the gradient norm) became (nan|-?inf) (in all micro-batches|with)"
        assert re.match(expected_start, sentence), (case, sentence)
        assert "spec.training.optimizer.learningRate" in sentence
        failed = int(sentence.split()[1].rstrip(":"))
        assert all(step < failed for step in saved)
        expected = f"the last good checkpoint is that of step {saved[-1]}" if saved else "there is no checkpoint yet"
        assert expected in sentence


def test_a_signal_on_one_rank_stops_all_ranks_at_the_same_step() -> None:
    signals = [(0, 3), (1, 1), (1, 6)]  # rank and step
    first, second = ranks.run(training.stop_and_resume, 2, changes(1, 2), [(-1, 0), *signals])
    for (_, signaled_step), *results in zip(signals, first[1:], second[1:], strict=True):
        for result in results:
            assert result["stopped"] == ([signaled_step - 1] if signaled_step > 1 else [])
            assert result["saved"] == [*result["stopped"], STEPS]
            assert f"step {signaled_step - 1}" in result["ended"]
        assert results[0]["steps"] == list(range(1, STEPS + 1))
        assert results[0]["history"] == first[0]["history"], "that of the run without a signal"
