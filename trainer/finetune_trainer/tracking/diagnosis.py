"""Whether a run learnt too little, too much or enough: a pure function of its history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from finetune_trainer.tracking.history import History

CHANGE = 0.02  # share of a loss by which it must differ for the difference to mean something
FEWEST = 3  # evaluations that show a trend

Kind = Literal["NothingLearnt", "OverFitting", "Unstable", "StillLearning", "Settled", "Unknown"]


class Diagnosis(NamedTuple):
    """What is to be said of a run in a word, and in a sentence that says what to change."""

    kind: Kind
    sentence: str


def diagnose(history: History) -> Diagnosis:
    """Compares the losses of training and evaluation, and where they were going."""
    evaluated = [(one.step, one.metrics["loss"]) for one in history.evaluations if one.step > 0]
    return _nothing_learnt(history) or _trend(history, evaluated)


def _nothing_learnt(history: History) -> Diagnosis | None:
    losses = [loss for _, loss, _ in history.training]
    some = math.ceil(len(losses) / 10)
    if len(losses) < 2:
        return None
    begin, end = _mean(losses[:some]), _mean(losses[-some:])
    evaluated = [one.metrics["loss"] for one in history.evaluations]
    if _falls(begin, end) or (evaluated and _falls(evaluated[0], min(evaluated))):
        return None
    return Diagnosis(
        "NothingLearnt",
        f"nothing learnt: the training loss was {begin:.4g} in the beginning and {end:.4g} at the end: raise "
        "training.optimizer.learningRate, train longer, or look whether the data says what is to be learnt",
    )


def _trend(history: History, evaluated: list[tuple[int, float]]) -> Diagnosis:
    if len(evaluated) < FEWEST:
        return Diagnosis(
            "Unknown",
            f"too few evaluations ({len(evaluated)}) to tell over-fitting from learning: set evaluation.everySteps, with "
            "data.evaluation or data.evaluationFraction",
        )
    (last, end), (best, least) = evaluated[-1], min(evaluated, key=lambda point: point[1])
    then, now = _training_loss(history, evaluated, best), _training_loss(history, evaluated, last)
    if _falls(end, least):
        rose = f"since step {best}: the evaluation loss rose from {least:.4g} to {end:.4g}"
        if _falls(then, now):
            return Diagnosis(
                "OverFitting",
                f"over-fitting {rose} while the training loss fell from {then:.4g} to {now:.4g}: set export.best and "
                "training.earlyStopping, or add data, weight decay or dropout",
            )
        return Diagnosis(
            "Unstable",
            f"no longer learning {rose}, and the training loss went from {then:.4g} to {now:.4g}: lower "
            "training.optimizer.learningRate, or let it decay",
        )
    earlier, before = evaluated[-1 - math.ceil(len(evaluated) / 5)]
    if _falls(before, end):
        return Diagnosis(
            "StillLearning",
            f"still learning: the evaluation loss fell from {before:.4g} at step {earlier} to {end:.4g} at step {last}: train "
            "longer",
        )
    settled = next(step for step, loss in evaluated if not _falls(loss, end))
    return Diagnosis(
        "Settled",
        f"settled: the evaluation loss is {end:.4g} and has not moved since step {settled}; the training loss is {now:.4g}",
    )


def _training_loss(history: History, evaluated: Sequence[tuple[int, float]], step: int) -> float:
    """Mean training loss over the steps between an evaluation and the one before it, or of the last step that is known."""
    before = max((earlier for earlier, _ in evaluated if earlier < step), default=0)
    losses = [loss for at, loss, _ in history.training if before < at <= step]
    return _mean(losses or [loss for at, loss, _ in history.training if at <= step][-1:])


def _falls(before: float, after: float) -> bool:
    return before - after > CHANGE * abs(before)


def _mean(losses: Sequence[float]) -> float:
    return sum(losses) / len(losses) if losses else math.nan
