"""The run's curve: loss, learning rate and evaluations by step, bounded in size, whole again after a restart."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

MOST_POINTS = 2000


class EvaluationRecord(NamedTuple):
    """What was measured after a step; tables, such as a confusion matrix, are JSON by name."""

    step: int
    metrics: dict[str, float]
    tables: dict[str, Any]


@dataclass
class History:
    """At most `MOST_POINTS` training points and as many evaluations; beyond that every second one is forgotten.

    Which steps are kept depends on their numbers alone, so a resumed run keeps the same ones.
    """

    stride: int = 1
    training: list[tuple[int, float, float]] = field(default_factory=list)  # step, loss, learning rate
    evaluations: list[EvaluationRecord] = field(default_factory=list)

    def add(self, step: int, loss: float, learning_rate: float) -> None:
        """A finished step."""
        if step % self.stride == 0:
            self.training.append((step, loss, learning_rate))
        if len(self.training) > MOST_POINTS:
            self.stride *= 2
            self.training = [point for point in self.training if point[0] % self.stride == 0]

    def add_evaluation(
        self, step: int, metrics: dict[str, float], tables: dict[str, Any] | None = None, best: int | None = None
    ) -> None:
        """What was measured after a step.

        Tables are kept of this evaluation and of that of the step `best`, which is not to be forgotten, nor is the start.
        """
        before = [one._replace(tables={}) if one.tables and one.step != best else one for one in self.evaluations]
        if len(before) >= MOST_POINTS:
            before = [one for index, one in enumerate(before) if index % 2 or one.step in (0, best)]
        self.evaluations = [*before, EvaluationRecord(step, metrics, tables or {})]

    def of_step(self, step: int) -> EvaluationRecord:
        """The evaluation after a step; an empty one if there is none."""
        return next((one for one in self.evaluations if one.step == step), EvaluationRecord(step, {}, {}))

    @property
    def evaluated(self) -> int | None:
        """The step that was evaluated last."""
        return self.evaluations[-1].step if self.evaluations else None

    @property
    def last_metrics(self) -> dict[str, float]:
        """What the last evaluation measured; empty before the first."""
        return self.evaluations[-1].metrics if self.evaluations else {}

    def state(self) -> dict[str, Any]:
        """All of it in plain numbers, for a checkpoint."""
        evaluations = [list(evaluation) for evaluation in self.evaluations]
        return {"stride": self.stride, "training": list(self.training), "evaluations": evaluations}

    @classmethod
    def of(cls, state: dict[str, Any]) -> History:
        """The history that `state` was taken of."""
        training = [(int(step), float(loss), float(rate)) for step, loss, rate in state["training"]]
        return cls(int(state["stride"]), training, [EvaluationRecord(*evaluation) for evaluation in state["evaluations"]])

    def write(self, folder: Path) -> None:
        """Writes history.jsonl, one point a line in the order of steps, into the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        points: list[dict[str, Any]] = [{"step": s, "loss": loss, "learningRate": rate} for s, loss, rate in self.training]
        points += [{"step": one.step, "evaluation": one.metrics} for one in self.evaluations]
        points.sort(key=lambda point: (point["step"], "evaluation" in point))
        (folder / "history.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
