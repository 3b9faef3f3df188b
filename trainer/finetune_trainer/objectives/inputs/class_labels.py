"""The labels of a classification, and rows encoded with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow
import torch

from finetune_trainer.config.objectives.classification import ClassificationObjectiveConfig
from finetune_trainer.data.loading.collate import Batch
from finetune_trainer.data.loading.dataset import Sample
from finetune_trainer.data.records.roles import label_name
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.base import Encoder, ObjectiveContext
from finetune_trainer.objectives.description import Block, text_block
from finetune_trainer.protocol.outcome import ConfigurationError, DataError

TARGET = "target"  # the label's id, or a 0 or 1 for each label, or the value
TARGET_TYPE = pyarrow.list_(pyarrow.float32())
PROBLEM_TYPES = {
    "SingleLabel": "single_label_classification",
    "MultiLabel": "multi_label_classification",
    "Regression": "regression",
}
SHOWN_LABELS = 20  # in an error message


class ClassLabels:
    """The labels of a document or of its training data: one of them, several of them, or a number for each row."""

    def __init__(self, config: ClassificationObjectiveConfig, section: str) -> None:
        """`section` is the objective's section in the document."""
        self.problem = config.problem
        self._config = config
        self._section = section
        self._names: list[str] | None = None
        self.ids: dict[str, int] = {}
        self.weights: torch.Tensor | None = None
        """Weight of each label's terms, [labels] float32; None where all are 1."""

    @property
    def names(self) -> list[str]:
        """The labels in the order of their ids; none of a regression."""
        assert self._names is not None, "call set_statistics before labels are used: they may come from the training data"
        return self._names

    @property
    def fingerprint(self) -> list[Any]:
        """Changes when the target of a row may change; JSON."""
        return [self.problem, self._config.labels, self._is_balanced]

    def collect_statistics(self, rows: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """The labels, and with `Balanced` the number of rows that have each; raises DataError if there is only one label."""
        if self.problem == "Regression":
            return {"labels": []}
        counts: Counter[str] = Counter()
        if not self._config.labels or self._is_balanced:
            for row in rows():
                counts.update(self._names_of(row))
        names = choose_labels(self._config.labels, counts)
        statistics: dict[str, Any] = {"labels": names}
        if self._is_balanced:
            statistics["rows"] = [counts[name] for name in names]
        return statistics

    def set_statistics(self, statistics: dict[str, Any]) -> None:
        """Use the labels; raises ConfigurationError for a class weight of an unknown label."""
        names: list[str] = statistics["labels"]
        self._names = names
        self.ids = {name: number for number, name in enumerate(names)}
        class_weights = self._config.class_weights
        if self._is_balanced:
            self.weights = balanced_weights(statistics["rows"])
        elif class_weights:
            for name in class_weights.keys() - self.ids.keys():
                raise ConfigurationError(
                    f"spec.objective.{self._section}.classWeights: {name!r} is none of the labels "
                    f"({', '.join(names[:SHOWN_LABELS])}): correct or remove it"
                )
            self.weights = torch.tensor([class_weights.get(name, 1.0) for name in names])

    def encode(self, row: Row) -> list[float]:
        """The target of a row; raises DataError for a label that cannot be used."""
        if self.problem == "Regression":
            return [_finite_number(row)]
        row_names = self._names_of(row)
        for name in row_names:
            if name not in self.ids:
                raise unknown_label(row, "label", name, self.names, self._section)
        if self.problem == "SingleLabel":
            return [self.ids[row_names[0]]]
        return [float(name in row_names) for name in self.names]

    def collate(self, samples: Sequence[Sample]) -> torch.Tensor:
        """The targets of a batch [rows, 1 or labels] float32; without samples, one row of NaN, which has no terms."""
        if samples:
            return torch.from_numpy(np.stack([sample[TARGET] for sample in samples]))
        width = len(self.names) if self.problem == "MultiLabel" else 1
        return torch.full((1, width), torch.nan)

    def describe(self, batch: Batch) -> Block:
        """The label of the only row of a batch."""
        [target] = batch.targets["labels"]
        if target.isnan().all():
            return text_block("label", "unknown")
        match self.problem:
            case "Regression":
                text = f"{target.item():g}"
            case "SingleLabel":
                text = self.names[int(target.item())]
            case "MultiLabel":
                text = ", ".join(name for name, is_set in zip(self.names, target.tolist(), strict=True) if is_set) or "none"
        return text_block("label", text, trained=True)

    def count_terms(self, targets: torch.Tensor) -> float:
        """Known targets, of which MultiLabel has one for each label; where labels have weights, the sum of these."""
        is_known = ~targets.isnan()
        if self.weights is None:
            return int(is_known.sum())
        return float(self.weights[targets[is_known].long()].sum(dtype=torch.float64))

    def config_overrides(self) -> dict[str, Any]:
        """Fields of the model's configuration: the number of outputs, and their names."""
        outputs = label_config(self.names) if self.names else {"num_labels": 1}
        return {"problem_type": PROBLEM_TYPES[self.problem]} | outputs

    @property
    def _is_balanced(self) -> bool:
        return self._config.class_weighting == "Balanced"

    def _names_of(self, row: Row) -> list[str]:
        label = row.values["label"]
        if self.problem == "MultiLabel":
            if not isinstance(label, list):
                raise row.error_for("label", f"is {label!r}, and MultiLabel needs a list of labels: correct the row")
            return [label_name(item) for item in label]
        if isinstance(label, list | float):
            raise row.error_for("label", f"is {label!r}, and SingleLabel needs one: correct the row or set the problem")
        return [label_name(label)]


class LabeledEncoder(Encoder):
    """An encoder of rows with a class label."""

    def __init__(self, processor: Any, context: ObjectiveContext, labels: ClassLabels) -> None:
        super().__init__(processor, context)
        self.labels = labels

    def collect_statistics(self, rows: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """The statistics of the labels."""
        return self.labels.collect_statistics(rows)

    def set_statistics(self, statistics: dict[str, Any]) -> None:
        """Use the labels."""
        super().set_statistics(statistics)
        self.labels.set_statistics(statistics)


def sort_labels(names: Iterable[str]) -> list[str]:
    """Distinct names, numbers by value and all others alphabetically: the same order on every machine."""
    distinct = set(names)
    if all(name.lstrip("-").isdecimal() for name in distinct):
        return sorted(distinct, key=int)
    return sorted(distinct)


def choose_labels(given: Sequence[str], in_data: Iterable[str]) -> list[str]:
    """The labels that the document gives, or else those of the data; raises DataError if there is only one."""
    names = list(given) or sort_labels(in_data)
    if len(names) < 2:
        raise DataError(
            f"spec.data.train: every row has the same label {', '.join(names)!r}, so there is nothing to classify: add rows "
            "with other labels"
        )
    return names


def label_config(names: Sequence[str]) -> dict[str, Any]:
    """Fields of the model's configuration: the names of its outputs, and so their number."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def unknown_label(row: Row, role: str, name: str, names: Sequence[str], section: str) -> DataError:
    """The error for a label of the row that is not among `names`; `section` is the objective's section in the document."""
    shown = ", ".join(names[:SHOWN_LABELS])
    return row.error_for(
        role, f"is {name!r}, which is none of the labels ({shown}): correct the row, or set objective.{section}.labels"
    )


def balanced_weights(counts: Sequence[int]) -> torch.Tensor:
    """Weights that give all labels the same total, [labels] float32, from the rows of each.

    As scikit-learn's `balanced`: rows / (labels x rows of the label).
    """
    return torch.tensor([sum(counts) / (len(counts) * max(count, 1)) for count in counts])


def _finite_number(row: Row) -> float:
    label = row.values["label"]
    try:
        value = float(label)
    except (TypeError, ValueError):
        raise row.error_for("label", f"is {label!r}, and Regression needs a number: correct the row") from None
    if not np.isfinite(value):
        raise row.error_for("label", f"is {label!r}, and Regression needs a finite number: correct the row")
    return value
