"""Which of a run's models is the best, and whether it is time to stop: pure functions of the history."""

from __future__ import annotations

import math

from finetune_trainer.config import EarlyStoppingConfig, EvaluationConfig
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.tracking.history import History


def best_first(history: History, settings: EvaluationConfig) -> list[int]:
    """Evaluated steps from the best to the worst, of equals the earlier one first; the starting model is none of them."""
    scores = _scores(history, settings)
    return sorted(scores, key=lambda step: (-scores[step], step))


def exhausted(history: History, settings: EvaluationConfig, stopping: EarlyStoppingConfig | None) -> str | None:
    """Why the run is to end here, in one sentence; None if it is to go on."""
    scores = _scores(history, settings)
    if stopping is None or settings.every_steps is None or not scores:
        return None
    best, *later = scores
    for step in later:
        if scores[step] > scores[best] + stopping.minimum_change:
            best = step
    # Counted by steps, since a long history forgets evaluations.
    if max(scores) - best < stopping.patience * settings.every_steps:
        return None
    value = history.of_step(best).metrics.get(settings.metric, math.nan)
    return (
        f"evaluation {settings.metric} has not improved on that of step {best} ({value:.4g}) for {stopping.patience} "
        f"evaluation{'s' * (stopping.patience > 1)}"
    )


def validate_metric(history: History, settings: EvaluationConfig) -> None:
    """Raises ConfigurationError if evaluations have never reported the metric that they are compared by."""
    if history.evaluations and not any(settings.metric in evaluation.metrics for evaluation in history.evaluations):
        reported = ", ".join(history.last_metrics)
        raise ConfigurationError(f"spec.evaluation.metric: {settings.metric} is not reported: choose one of {reported}")


def _scores(history: History, settings: EvaluationConfig) -> dict[int, float]:
    """The metric by step, turned so that more is better; one that is missing or no number is worse than any."""
    sign = 1 if settings.maximizes else -1
    found = {one.step: sign * one.metrics.get(settings.metric, math.nan) for one in history.evaluations if one.step > 0}
    return {step: -math.inf if math.isnan(score) else score for step, score in found.items()}
