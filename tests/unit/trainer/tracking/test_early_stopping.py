"""The ranking of evaluations, and when a run stops early."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from finetune_trainer.config import EarlyStoppingConfig, EvaluationConfig
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.tracking import early_stopping, history

NAN = float("nan")


def history_of(values: Sequence[float], metric: str = "loss", every: int = 10) -> history.History:
    result = history.History()
    for number, value in enumerate(values):
        result.add_evaluation(number * every, {"loss": 1.0, metric: value})
    return result


@pytest.mark.parametrize(
    ("metric", "goal", "values", "expected"),
    [
        ("loss", None, [0, 3, 2, 4], [20, 10, 30]),
        ("accuracy", None, [9, 3, 2, 4], [30, 10, 20]),
        ("topic.f1[a.b]", None, [9, 3, 2, 4], [30, 10, 20]),
        ("recall@5", None, [9, 3, 2, 4], [30, 10, 20]),
        ("topic.perplexity", None, [0, 3, 2, 4], [20, 10, 30]),
        ("surprise", "Maximize", [0, 3, 2, 4], [30, 10, 20]),
        ("surprise", "Minimize", [0, 3, 2, 4], [20, 10, 30]),
        ("loss", None, [0, 2, 2, 1], [30, 10, 20]),
        ("loss", None, [0, NAN, 2, float("inf")], [20, 10, 30]),
        ("loss", None, [0], []),
    ],
)
def test_ranks_steps(metric: str, goal: str | None, values: list[float], expected: list[int]) -> None:
    settings = EvaluationConfig.model_validate({"everySteps": 10, "metric": metric, "goal": goal})
    assert early_stopping.rank_steps(history_of(values, metric), settings) == expected


@pytest.mark.parametrize(
    ("values", "patience", "minimum", "best"),
    [
        ([0, 5, 4, 3, 2], 1, 0, None),
        ([0, 5, 4, 4], 1, 0, 20),
        ([0, 5, 4, 4, 5], 3, 0, None),
        ([0, 5, 4, 4, 5, 4], 3, 0, 20),
        ([0, 5, 4, 4, 3, 4], 3, 0, None),
        ([0, 5, 4.9, 4.8, 4.7], 3, 0.5, 10),
        ([0, 5, 4.9, 4.8, 4.4], 3, 0.5, None),
        ([0, NAN, NAN, NAN], 2, 0, 10),
        ([0], 1, 0, None),
        ([], 1, 0, None),
    ],
)
def test_stops_after_patience(values: list[float], patience: int, minimum: float, best: int | None) -> None:
    stopping = EarlyStoppingConfig(patience=patience, minimum_change=minimum)
    reason = early_stopping.early_stop_reason(history_of(values), EvaluationConfig(every_steps=10), stopping)
    assert (reason is None) == (best is None)
    assert reason is None or f"since step {best} " in reason
    assert early_stopping.early_stop_reason(history_of(values), EvaluationConfig(every_steps=10), None) is None


def test_reports_the_metric_with_its_sign() -> None:
    negative = history_of([0, -0.2, -0.3], "r2")
    reason = early_stopping.early_stop_reason(
        negative, EvaluationConfig(every_steps=10, metric="r2"), EarlyStoppingConfig(patience=1)
    )
    assert reason == "evaluation r2 has not improved in 1 evaluation since step 10 (-0.2)"


def test_a_long_history_keeps_the_best_and_the_last_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_POINTS", 20)
    result = history.History()
    for step in range(1, 101):
        best = next(iter(early_stopping.rank_steps(result, EvaluationConfig())), None)
        result.add_evaluation(step, {"loss": abs(step - 7.0)}, {"table": step}, best)
    assert len(result.evaluations) <= 20
    assert early_stopping.rank_steps(result, EvaluationConfig())[0] == 7
    assert result.last_evaluated_step == 100
    assert [record.step for record in result.evaluations if record.tables] == [7, 100]


def test_rejects_a_metric_that_is_not_reported() -> None:
    settings = EvaluationConfig(metric="f1")
    early_stopping.validate_metric(history.History(), settings)
    early_stopping.validate_metric(history_of([1, 2], "f1"), settings)
    with pytest.raises(ConfigurationError, match=r"^spec.evaluation.metric: f1 is not reported: choose one of loss, accuracy$"):
        early_stopping.validate_metric(history_of([1, 2], "accuracy"), settings)
