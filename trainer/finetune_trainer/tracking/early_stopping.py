"""The best model of a run and early stopping, as pure functions of the history."""

from __future__ import annotations

import math

from finetune_trainer.config import EarlyStoppingConfig, EvaluationConfig
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.tracking.history import History


def rank_steps(history: History, evaluation: EvaluationConfig) -> list[int]:
    """Evaluated steps from the best to the worst, the earlier of equal ones first; the starting model is not ranked."""
    scores = _scores_by_step(history, evaluation)
    return sorted(scores, key=lambda step: (-scores[step], step))


def early_stop_reason(history: History, evaluation: EvaluationConfig, early_stopping: EarlyStoppingConfig | None) -> str | None:
    """One sentence on why the run stops now; None if it continues."""
    scores = _scores_by_step(history, evaluation)
    if early_stopping is None or evaluation.every_steps is None or not scores:
        return None
    best_step, *later_steps = scores
    for step in later_steps:
        if scores[step] > scores[best_step] + early_stopping.minimum_change:
            best_step = step
    # Patience is counted in steps, because a long history drops evaluations.
    if max(scores) - best_step < early_stopping.patience * evaluation.every_steps:
        return None
    value = history.evaluation_at(best_step).metrics.get(evaluation.metric, math.nan)
    plural = "s" if early_stopping.patience > 1 else ""
    return (
        f"evaluation {evaluation.metric} has not improved in {early_stopping.patience} evaluation{plural} "
        f"since step {best_step} ({value:.4g})"
    )


def validate_metric(history: History, evaluation: EvaluationConfig) -> None:
    """Raise ConfigurationError if no evaluation has reported the metric that they are compared by."""
    if not history.evaluations:
        return
    if any(evaluation.metric in record.metrics for record in history.evaluations):
        return
    reported = ", ".join(history.last_metrics)
    raise ConfigurationError(f"spec.evaluation.metric: {evaluation.metric} is not reported: choose one of {reported}")


def _scores_by_step(history: History, evaluation: EvaluationConfig) -> dict[int, float]:
    """The metric by step, negated if lower is better; a missing metric or a NaN ranks below every other value."""
    sign = 1 if evaluation.maximizes else -1
    scores: dict[int, float] = {}
    for record in history.evaluations:
        if record.step > 0:
            score = sign * record.metrics.get(evaluation.metric, math.nan)
            scores[record.step] = -math.inf if math.isnan(score) else score
    return scores
