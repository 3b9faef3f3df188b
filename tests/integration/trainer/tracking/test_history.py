"""The history stays bounded and is restored after a restart."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from finetune_trainer.tracking.history import MAX_POINTS, History


def extended(steps: range, history: History | None = None) -> History:
    history = history or History()
    for step in steps:
        history.add(step, 1 / step, step / 10)
        if step % 3 == 0:
            history.add_evaluation(step, {"loss": 2 / step})
    return history


def test_is_bounded_and_covers_the_run() -> None:
    history = History()
    history.add_evaluation(0, {"loss": 9.0})
    extended(range(1, 30_001), history)
    steps = [step for step, _, _ in history.training]
    assert MAX_POINTS / 2 <= len(steps) <= MAX_POINTS
    assert len({b - a for a, b in itertools.pairwise(steps)}) == 1
    assert steps[0] < 40
    assert steps[-1] > 29_960
    assert len(history.evaluations) <= MAX_POINTS
    assert history.last_evaluated_step == 30_000
    assert history.evaluation_at(0).metrics == {"loss": 9.0}, "the evaluation of the start is never dropped"


def test_a_resumed_run_has_the_same_history() -> None:
    before = extended(range(1, 4_001))
    state = json.loads(json.dumps(before.to_dict()))
    assert extended(range(4_001, 9_001), History.from_dict(state)).to_dict() == extended(range(1, 9_001)).to_dict()


def test_writes_points_in_the_order_of_steps(tmp_path: Path) -> None:
    history = extended(range(1, 4))
    assert history.last_metrics == {"loss": 2 / 3}
    history.write(tmp_path / "training")
    lines = [json.loads(line) for line in (tmp_path / "training" / "history.jsonl").read_text().splitlines()]
    assert lines == [
        {"step": 1, "loss": 1.0, "learningRate": 0.1},
        {"step": 2, "loss": 0.5, "learningRate": 0.2},
        {"step": 3, "loss": 1 / 3, "learningRate": 0.3},
        {"step": 3, "evaluation": {"loss": 2 / 3}},
    ]


def test_an_empty_history_writes_an_empty_file(tmp_path: Path) -> None:
    History().write(tmp_path)
    assert (tmp_path / "history.jsonl").read_text() == ""
    assert (History().last_evaluated_step, History().last_metrics) == (None, {})
