"""The run's history: loss, learning rate and evaluations by step, bounded in size and restored after a restart."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

FEW_SHOT = "fewShot."
"""The prefix of metrics and tables that the few-shot evaluation of the starting model reports."""
MAX_POINTS = 2000
MAX_ANOMALIES = 100


class EvaluationRecord(NamedTuple):
    """The result of the evaluation after a step; tables, such as a confusion matrix, are JSON by name."""

    step: int
    metrics: dict[str, float]
    tables: dict[str, Any]


@dataclass
class History:
    """At most `MAX_POINTS` training points and as many evaluations; beyond that every second one is dropped.

    Which steps are kept depends on their numbers alone, so that a resumed run keeps the same ones.
    """

    stride: int = 1
    training: list[tuple[int, float, float]] = field(default_factory=list)  # step, loss, learning rate
    evaluations: list[EvaluationRecord] = field(default_factory=list)
    anomalies: list[tuple[int, str]] = field(default_factory=list)  # step, sentence

    def add(self, step: int, loss: float, learning_rate: float) -> None:
        """Add a finished step."""
        if step % self.stride == 0:
            self.training.append((step, loss, learning_rate))
        if len(self.training) > MAX_POINTS:
            self.stride *= 2
            self.training = [point for point in self.training if point[0] % self.stride == 0]

    def add_anomaly(self, step: int, sentence: str) -> None:
        """Add a step that was skipped, or the step whose checkpoint the run returned to; the last ones are kept."""
        self.anomalies = [*self.anomalies[1 - MAX_ANOMALIES :], (step, sentence)]

    def add_evaluation(
        self, step: int, metrics: dict[str, float], tables: dict[str, Any] | None = None, best_step: int | None = None
    ) -> None:
        """Add the evaluation after a step.

        Tables are kept for this evaluation and for that of `best_step`. The evaluations of `best_step` and of the start are
        never dropped.
        """
        earlier: list[EvaluationRecord] = []
        for record in self.evaluations:
            has_obsolete_tables = bool(record.tables) and record.step != best_step
            earlier.append(record._replace(tables={}) if has_obsolete_tables else record)
        if len(earlier) >= MAX_POINTS:
            earlier = [record for index, record in enumerate(earlier) if index % 2 or record.step in (0, best_step)]
        self.evaluations = [*earlier, EvaluationRecord(step, metrics, tables or {})]

    def evaluation_at(self, step: int) -> EvaluationRecord:
        """The evaluation after a step; an empty record if there is none."""
        for record in self.evaluations:
            if record.step == step:
                return record
        return EvaluationRecord(step, {}, {})

    @property
    def last_loss(self) -> float | None:
        """The training loss of the last recorded step."""
        return self.training[-1][1] if self.training else None

    @property
    def last_evaluated_step(self) -> int | None:
        """The step of the last evaluation."""
        return self.evaluations[-1].step if self.evaluations else None

    @property
    def last_metrics(self) -> dict[str, float]:
        """The metrics of the last evaluation; empty before the first."""
        return self.evaluations[-1].metrics if self.evaluations else {}

    def to_dict(self) -> dict[str, Any]:
        """The history as plain values, for a checkpoint."""
        evaluations = [list(evaluation) for evaluation in self.evaluations]
        return {
            "stride": self.stride,
            "training": list(self.training),
            "evaluations": evaluations,
            "anomalies": list(self.anomalies),
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> History:
        """Restore the history that `to_dict` returned."""
        training = [(int(step), float(loss), float(rate)) for step, loss, rate in state["training"]]
        evaluations = [EvaluationRecord(*evaluation) for evaluation in state["evaluations"]]
        return cls(int(state["stride"]), training, evaluations, [(step, text) for step, text in state["anomalies"]])

    def write(self, folder: Path) -> None:
        """Write history.jsonl, one point a line in the order of steps, into the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        points: list[dict[str, Any]] = []
        for step, loss, learning_rate in self.training:
            points.append({"step": step, "loss": loss, "learningRate": learning_rate})
        for record in self.evaluations:
            points.append({"step": record.step, "evaluation": record.metrics})
        for step, sentence in self.anomalies:
            points.append({"step": step, "anomaly": sentence})
        points.sort(key=lambda point: (point["step"], "evaluation" in point))
        (folder / "history.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
