"""What classifications share, whatever they label: labels, loss and metrics."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow
import torch
from torch.nn import functional

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.objectives import field_of
from finetune_trainer.config.objectives.classification import ClassificationObjectiveConfig as Options
from finetune_trainer.data.loading.collate import Batch
from finetune_trainer.data.loading.dataset import Sample
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.base import BatchStatistics, Objective
from finetune_trainer.objectives.forward import forward
from finetune_trainer.objectives.metrics import classification
from finetune_trainer.protocol.outcome import ConfigurationError

TARGET = "target"  # the label's number, or a 0 or 1 for each label, or the value
TARGET_TYPE = pyarrow.list_(pyarrow.float32())
PROBLEMS = {
    "SingleLabel": "single_label_classification",
    "MultiLabel": "multi_label_classification",
    "Regression": "regression",
}


class Classification(Objective):
    """Cross entropy of the label, binary cross entropy of each label, or the squared error of the value; in float32.

    A batch has `labels` [rows, 1 or labels] float32, NaN where there is nothing to learn; the rest is for the model.
    """

    has_new_head: ClassVar[bool] = True

    def __init__(self, spec: TrainSpec, processor: Any) -> None:
        super().__init__(spec, processor)
        options = spec.objective.config
        assert isinstance(options, Options)
        self._problem = options.problem
        self._given = options.labels
        self._balanced = options.class_weighting == "Balanced"
        self._class_weights = options.class_weights
        self._weights: torch.Tensor | None = None  # of each label's terms, [labels]; None where all count alike
        self._numbers: dict[str, int] = {}

    def collect_statistics(self, records: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """The labels, from the document or else from the data, and if need be how many rows each has.

        Raises DataError if there is only one.
        """
        if self._problem == "Regression":
            return {"labels": []}
        unread = self._given and not self._balanced
        counts = Counter(() if unread else (name for record in records() for name in self._names(record)))
        found = classification.distinct(self._given, counts)
        return {"labels": found} | ({"rows": [counts[name] for name in found]} if self._balanced else {})

    def set_statistics(self, facts: dict[str, Any]) -> None:
        super().set_statistics(facts)
        self._numbers = {name: number for number, name in enumerate(facts["labels"])}
        if self._balanced:
            self._weights = classification.balancing(facts["rows"])
        elif self._class_weights:
            for name in self._class_weights.keys() - self._numbers.keys():
                raise ConfigurationError(
                    f"spec.objective.{field_of(type(self).__name__)}.classWeights: {name!r} is none of the labels "
                    f"({', '.join(list(self._numbers)[:20])}): correct or remove it"
                )
            self._weights = torch.tensor([self._class_weights.get(name, 1.0) for name in self._numbers])

    @property
    def target_identity(self) -> list[Any]:
        """What changes when the targets of a record may; JSON."""
        return [self._problem, self._given, self._balanced]

    def target(self, record: Row) -> list[float]:
        """What a record teaches; raises DataError for a label that does not suit."""
        if self._problem == "Regression":
            return [_number(record)]
        names = self._names(record)
        for name in names:
            if name not in self._numbers:
                raise classification.unknown(record, "label", name, self._numbers, field_of(type(self).__name__))
        if self._problem == "SingleLabel":
            return [self._numbers[names[0]]]
        return [float(name in names) for name in self._numbers]

    def model_config_overrides(self) -> dict[str, Any]:
        """The number of outputs, and what they are called."""
        names = self.facts["labels"]
        return {"problem_type": PROBLEMS[self._problem]} | (classification.settings(names) if names else {"num_labels": 1})

    def targets(self, rows: Sequence[Sample]) -> torch.Tensor:
        """The labels of a batch; of one without rows, a row that tells none."""
        width = len(self._numbers) if self._problem == "MultiLabel" else 1
        return torch.from_numpy(np.stack([row[TARGET] for row in rows]) if rows else np.full((1, width), np.nan, np.float32))

    def count(self, batch: Batch) -> Sequence[float]:
        """Labels that are told; with MultiLabel each row tells all of them. Where labels have weights, those of the labels."""
        told = ~batch["labels"].isnan()
        if self._weights is None:
            return [int(told.sum())]
        return [float(self._weights[batch["labels"][told].long()].sum(dtype=torch.float64))]

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """Summed loss of `model` on the batch."""
        return self._loss_sum(forward(model, batch).logits.float(), batch["labels"], self.spec.training.label_smoothing)

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: counts of labels, then rows that are right in all of them, and all rows; or the moments of the value."""
        logits, labels = forward(model, batch).logits.float(), batch["labels"]
        rows = ~labels[:, 0].isnan()
        return BatchStatistics(self._loss_sum(logits, labels), self._statistics(logits[rows], labels[rows]).cpu())

    def metrics(self, losses: Sequence[float], statistics: np.ndarray[Any, Any]) -> dict[str, float]:
        """Accuracy, precision, recall and F1, with SingleLabel Matthews' correlation; or the errors of the value."""
        if self._problem == "Regression":
            return {"loss": losses[0]} | _errors(statistics)
        counts, (right, rows) = statistics[:-2], statistics[-2:]
        if self._problem == "SingleLabel":
            counts = classification.counts_of_pairs(counts, len(self._numbers))
        found = {"loss": losses[0], "accuracy": float(right / max(rows, 1))} | classification.scores(
            counts, self.facts["labels"]
        )
        return found | ({"matthews": classification.matthews(counts)} if self._problem == "SingleLabel" else {})

    def tables(self, statistics: np.ndarray[Any, Any]) -> dict[str, Any]:
        """With SingleLabel the confusion matrix."""
        return classification.confusion(statistics[:-2], self.facts["labels"]) if self._problem == "SingleLabel" else {}

    def _loss_sum(self, logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        told, known = ~labels.isnan(), labels.nan_to_num()
        match self._problem:
            case "SingleLabel":
                weights = None if self._weights is None else self._weights.to(logits.device)
                target = known[:, 0].long()
                each = functional.cross_entropy(logits, target, weights, reduction="none", label_smoothing=smoothing)[:, None]
            case "MultiLabel":
                each = functional.binary_cross_entropy_with_logits(logits, known, reduction="none")
            case "Regression":
                each = (logits - known).square()
        return each.where(told, 0.0).sum()[None]

    def _statistics(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self._problem == "Regression":
            guess, value = logits[:, 0].double(), labels[:, 0].double()
            error = guess - value
            terms = [torch.ones_like(value), guess, value, guess**2, value**2, guess * value, error**2, error.abs()]
            return torch.stack([term.sum() for term in terms])
        if self._problem == "SingleLabel":
            chosen, told = logits.argmax(1), labels[:, 0].long()
            right, counts = chosen == told, classification.pair_counts(chosen, told, logits.shape[1])
        else:
            predicted, actual = logits > 0, labels > 0
            right, counts = (predicted == actual).all(1), classification.counts(predicted, actual)
        rows = torch.tensor([int(right.sum()), len(right)], dtype=torch.float64, device=logits.device)
        return torch.cat([counts, rows])

    def _names(self, record: Row) -> list[str]:
        label = record.values["label"]
        if self._problem == "MultiLabel":
            if not isinstance(label, list):
                raise record.error_for("label", f"is {label!r}, and MultiLabel needs a list of labels: correct the row")
            return [classification.label_name(one) for one in label]
        if isinstance(label, list | float):
            raise record.error_for("label", f"is {label!r}, and SingleLabel needs one: correct the row or set the problem")
        return [classification.label_name(label)]


def _number(record: Row) -> float:
    label = record.values["label"]
    try:
        value = float(label)
    except (TypeError, ValueError):
        raise record.error_for("label", f"is {label!r}, and Regression needs a number: correct the row") from None
    if not np.isfinite(value):
        raise record.error_for("label", f"is {label!r}, and Regression needs a finite number: correct the row")
    return value


def _errors(statistics: np.ndarray[Any, Any]) -> dict[str, float]:
    """Mean squared and absolute error, share of the variance explained, and Pearson's correlation, from sums over rows."""
    rows, guess, value, guess2, value2, both, error2, error = statistics.tolist()
    if not rows:
        return {}
    found = {"mse": error2 / rows, "mae": error / rows}
    spread, other = value2 - value**2 / rows, guess2 - guess**2 / rows
    if spread > 0 and other > 0:
        found |= {"r2": 1 - error2 / spread, "pearson": (both - guess * value / rows) / math.sqrt(spread * other)}
    return found
