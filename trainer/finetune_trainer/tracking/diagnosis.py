"""Diagnoses a run's loss curves: no learning, over-fitting, instability, still learning or settled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from finetune_trainer.tracking.history import History

SIGNIFICANT_CHANGE = 0.02  # smaller relative changes of a loss are noise
MIN_EVALUATIONS = 3  # fewer evaluations show no trend

Kind = Literal["NothingLearned", "OverFitting", "Unstable", "StillLearning", "Settled", "Unknown"]


class Diagnosis(NamedTuple):
    """The kind of the run's curves and one sentence that names a remedy."""

    kind: Kind
    sentence: str


class LossPoint(NamedTuple):
    """The evaluation loss after a step."""

    step: int
    loss: float


def diagnose(history: History) -> Diagnosis:
    """Compare the training and evaluation losses and their trends."""
    evaluations = [LossPoint(record.step, record.metrics["loss"]) for record in history.evaluations if record.step > 0]
    return _diagnose_no_learning(history) or _diagnose_trend(history, evaluations)


def _diagnose_no_learning(history: History) -> Diagnosis | None:
    losses = [loss for _, loss, _ in history.training]
    if len(losses) < 2:
        return None
    tenth = math.ceil(len(losses) / 10)
    first, last = _mean(losses[:tenth]), _mean(losses[-tenth:])
    evaluation_losses = [record.metrics["loss"] for record in history.evaluations]
    if _has_fallen(first, last):
        return None
    if evaluation_losses and _has_fallen(evaluation_losses[0], min(evaluation_losses)):
        return None
    return Diagnosis(
        "NothingLearned",
        f"nothing learned: the training loss was {first:.4g} at the start and {last:.4g} at the end: raise "
        "training.optimizer.learningRate, train longer, or check that the inputs determine the targets",
    )


def _diagnose_trend(history: History, evaluations: list[LossPoint]) -> Diagnosis:
    if len(evaluations) < MIN_EVALUATIONS:
        return Diagnosis(
            "Unknown",
            f"too few evaluations ({len(evaluations)}) to distinguish over-fitting from learning: set evaluation.everySteps, "
            "with data.evaluation or data.evaluationFraction",
        )
    last, best = evaluations[-1], min(evaluations, key=lambda point: point.loss)
    training_loss = _mean_training_loss(history, evaluations, last.step)
    if _has_fallen(last.loss, best.loss):
        return _diagnose_rise(best, last, _mean_training_loss(history, evaluations, best.step), training_loss)
    earlier = evaluations[-1 - math.ceil(len(evaluations) / 5)]
    if _has_fallen(earlier.loss, last.loss):
        return Diagnosis(
            "StillLearning",
            f"still learning: the evaluation loss fell from {earlier.loss:.4g} at step {earlier.step} to {last.loss:.4g} at "
            f"step {last.step}: train longer",
        )
    settled_step = next(step for step, loss in evaluations if not _has_fallen(loss, last.loss))
    return Diagnosis(
        "Settled",
        f"settled: the evaluation loss is {last.loss:.4g} and has not changed since step {settled_step}; the training loss is "
        f"{training_loss:.4g}",
    )


def _diagnose_rise(best: LossPoint, last: LossPoint, training_at_best: float, training_at_last: float) -> Diagnosis:
    """The diagnosis for an evaluation loss that rose after its best value."""
    rise = f"since step {best.step}: the evaluation loss rose from {best.loss:.4g} to {last.loss:.4g}"
    if _has_fallen(training_at_best, training_at_last):
        return Diagnosis(
            "OverFitting",
            f"over-fitting {rise} while the training loss fell from {training_at_best:.4g} to {training_at_last:.4g}: set "
            "export.best and training.earlyStopping, or add data, weight decay or dropout",
        )
    return Diagnosis(
        "Unstable",
        f"no longer learning {rise}, and the training loss went from {training_at_best:.4g} to {training_at_last:.4g}: lower "
        "training.optimizer.learningRate, or let it decay",
    )


def _mean_training_loss(history: History, evaluations: Sequence[LossPoint], step: int) -> float:
    """Mean training loss between the evaluation at `step` and the one before it, or of the last recorded step up to it."""
    previous = max((point.step for point in evaluations if point.step < step), default=0)
    losses_until_step = [(point_step, loss) for point_step, loss, _ in history.training if point_step <= step]
    losses = [loss for point_step, loss in losses_until_step if point_step > previous]
    if not losses:
        losses = [loss for _, loss in losses_until_step[-1:]]
    return _mean(losses)


def _has_fallen(before: float, after: float) -> bool:
    return before - after > SIGNIFICANT_CHANGE * abs(before)


def _mean(losses: Sequence[float]) -> float:
    return sum(losses) / len(losses) if losses else math.nan
