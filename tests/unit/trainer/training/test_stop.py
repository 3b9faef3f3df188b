"""What a run says about a stop during an evaluation, and that the next run evaluates again."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from finetune_trainer.config import EvaluationConfig, TrainingConfig
from finetune_trainer.distributed.preemption import Interrupted, Preempted, PreemptionSignal
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.training.evaluation import EvaluationResult
from finetune_trainer.training.loop import TrainingLoop
from finetune_trainer.training.train_state import TrainState

RESULT = EvaluationResult({"loss": 1.0}, {})


def stopped_loop(step: int, evaluated: EvaluationResult | None, **evaluation: Any) -> TrainingLoop:
    """A loop of 10 steps after `step`, in which a stop was requested; its evaluations return `evaluated`."""
    evaluator = MagicMock(has_data=True)
    evaluator.evaluate.return_value = evaluator.evaluate_start.return_value = evaluated
    train_step, batches = MagicMock(), MagicMock()
    train_step.count_terms.return_value = [0.0]
    batches.training.return_value = iter([[]])
    stop = PreemptionSignal()
    stop.requested = True
    return TrainingLoop(
        training=TrainingConfig(max_steps=10),
        evaluation=EvaluationConfig(every_steps=2, **evaluation),
        export_best=False,
        group=ProcessGroup(0, 1, 0, 1, torch.device("cpu")),
        train_step=train_step,
        evaluator=evaluator,
        batches=batches,
        checkpoints=MagicMock(),
        reporter=MagicMock(),
        stop=stop,
        total_steps=10,
        state=TrainState(step),
    )


@pytest.mark.parametrize(
    ("step", "evaluated", "message"),
    [
        (3, None, "stopped at step 3; its checkpoint is stored"),
        (4, RESULT, "stopped at step 4; its checkpoint is stored"),
        (4, None, "stopped at step 4 during its evaluation; its checkpoint is stored; the next run evaluates it again"),
        (0, None, "stopped at step 0 during its evaluation; there is nothing to store; the next run evaluates it again"),
    ],
)
def test_says_whether_an_evaluation_was_interrupted(step: int, evaluated: EvaluationResult | None, message: str) -> None:
    with pytest.raises(Preempted) as stopped:
        stopped_loop(step, evaluated, at_start=True).run()
    assert str(stopped.value) == message


@pytest.mark.parametrize(
    ("evaluated", "next_run"), [(None, "evaluates it and exports the model"), (RESULT, "exports the model")]
)
def test_a_stop_at_the_last_step_says_what_is_left(evaluated: EvaluationResult | None, next_run: str) -> None:
    loop = stopped_loop(10, evaluated)
    with pytest.raises(Interrupted) as stopped:
        loop.run()
    assert str(stopped.value) == f"stopped after the last step, 10, whose checkpoint is stored; the next run {next_run}"
    assert loop.state.history.last_evaluated_step == (10 if evaluated else None)
