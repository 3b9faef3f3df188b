"""The diagnosis of a run's loss curves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from finetune_trainer.tracking.diagnosis import diagnose
from finetune_trainer.tracking.history import History


def history_of(training: Sequence[float], evaluated: Sequence[float]) -> History:
    """A history with an evaluation before the first step and after every step."""
    history = History()
    for step, loss in enumerate(training, start=1):
        history.add(step, loss, 0.1)
    for step, loss in enumerate(evaluated):
        history.add_evaluation(step, {"loss": loss})
    return history


@pytest.mark.parametrize(
    ("training", "evaluated", "kind", "sentence"),
    [
        (
            [5, 4, 3, 2, 1], [6, 5, 4, 4.5, 5, 6], "OverFitting",
            "over-fitting since step 2: the evaluation loss rose from 4 to 6 while the training loss fell from 4 to 1: ",
        ),
        (
            [5, 4, 3, 8, 9], [6, 5, 4, 3, 9, 10], "Unstable",
            "no longer learning since step 3: the evaluation loss rose from 3 to 10, and the training loss went from 3 to 9: ",
        ),
        (
            [5, 4, 3, 2, 1], [6, 5, 4, 3, 2, 1], "StillLearning",
            "still learning: the evaluation loss fell from 2 at step 4 to 1 at step 5: train longer",
        ),
        (
            [5, 4, 3, 3, 3], [6, 5, 3.1, 3.02, 3, 3.01], "Settled",
            "settled: the evaluation loss is 3.01 and has not changed since step 3; the training loss is 3",
        ),
        (
            [5, 4.99, 5.01, 5, 4.98], [5, 5, 5.01, 4.99, 5, 5], "NothingLearned",
            "nothing learned: the training loss was 5 at the start and 4.98 at the end: raise ",
        ),
        ([5, 5, 5], [], "NothingLearned", "nothing learned: "),
        (
            [5, 4, 3], [], "Unknown",
            "too few evaluations (0) to distinguish over-fitting from learning: set evaluation.everySteps",
        ),
        ([5, 4, 3], [6, 5, 4], "Unknown", "too few evaluations (2) "),
        ([], [], "Unknown", "too few evaluations (0) "),
        ([5], [], "Unknown", "too few evaluations (0) "),
        # With adapters the training loss can stay noisy while the evaluation loss falls.
        ([5, 6, 5, 4, 5], [6, 5, 4, 3, 2, 1], "StillLearning", "still learning: "),
    ],
)  # fmt: skip
def test_diagnoses_curves(training: list[float], evaluated: list[float], kind: str, sentence: str) -> None:
    diagnosis = diagnose(history_of(training, evaluated))
    assert (diagnosis.kind, diagnosis.sentence[: len(sentence)]) == (kind, sentence)


def test_compares_mean_training_losses_between_evaluations() -> None:
    history = History()
    for step in range(1, 41):
        history.add(step, (3 if step <= 20 else 1) + step % 2, 0.1)
        if step % 10 == 0:
            history.add_evaluation(step, {"loss": 2 + step / 10})
    assert "while the training loss fell from 3.5 to 1.5" in diagnose(history).sentence
