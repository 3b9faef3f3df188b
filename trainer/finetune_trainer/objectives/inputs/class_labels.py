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
from finetune_trainer.data.records.labels import UNKNOWN, is_missing, label_name
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.base import Encoder, ObjectiveContext
from finetune_trainer.objectives.description import Block, text_block
from finetune_trainer.objectives.inputs.label_names import (
    SHOWN_LABELS,
    LabelSet,
    sort_labels,
    validate_distinct,
    without_unknown,
)
from finetune_trainer.objectives.inputs.multi_hot import MultiHotDetector, encode_multi_hot, multi_hot_names
from finetune_trainer.protocol.outcome import ConfigurationError, DataError

TARGET = "target"  # the label's id, or a 0 or 1 for each label, or the value
TARGET_TYPE = pyarrow.list_(pyarrow.float32())
PROBLEM_TYPES = {
    "SingleLabel": "single_label_classification",
    "MultiLabel": "multi_label_classification",
    "Regression": "regression",
}


class ClassLabels(LabelSet):
    """The labels of a document or of its training data: one of them, several of them, or a number for each row."""

    def __init__(self, config: ClassificationObjectiveConfig, section: str) -> None:
        """`section` is the objective's section in the document."""
        super().__init__(config.labels, section)
        self.problem = config.problem
        self._config = config
        self._is_multi_hot = False
        self.weights: torch.Tensor | None = None
        """Weight of each label's terms, [labels] float32; None where all are 1."""

    @property
    def fingerprint(self) -> list[Any]:
        """Changes when the target of a row may change; JSON."""
        return [self.problem, self.given, self._is_balanced, self.order_fingerprint]

    def collect_statistics(self, rows: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """The labels, with `Balanced` the number of rows that have each, and whether MultiLabel's are multi-hot vectors.

        Raises DataError for a column that holds no labels, or fewer than two different ones.
        """
        match self.problem:
            case "Regression":
                return {"labels": []}
            case "SingleLabel":
                return self._collect_single_labels(rows)
            case "MultiLabel":
                return self._collect_label_lists(rows)

    def set_statistics(self, statistics: dict[str, Any]) -> None:
        """Use the labels; raises ConfigurationError for a class weight of an unknown label."""
        names: list[str] = statistics["labels"]
        self.set_names(names)
        self._is_multi_hot = statistics.get("multiHot", False)
        class_weights = self._config.class_weights
        if self._is_balanced:
            self.weights = balanced_weights(statistics["rows"])
        elif class_weights:
            for name in class_weights.keys() - set(names):
                raise ConfigurationError(
                    f"spec.objective.{self.section}.classWeights: {name!r} is none of the labels "
                    f"({', '.join(names[:SHOWN_LABELS])}): correct or remove it"
                )
            self.weights = torch.tensor([class_weights.get(name, 1.0) for name in names])

    def encode(self, row: Row) -> list[float] | None:
        """The target of a row, None for one without a label; raises DataError for a label that cannot be used."""
        label = row.values["label"]
        if is_missing(label):
            return None
        match self.problem:
            case "Regression":
                return _finite_number(row)
            case "SingleLabel":
                ids = self._ids_of(row, [_single_name(row)])
                return None if ids is None else [float(ids[0])]
            case "MultiLabel" if self._is_multi_hot:
                return encode_multi_hot(row, len(self.names), self.field)
            case "MultiLabel":
                present = self._ids_of(row, _names_in_list(row))
                return None if present is None else [float(number in present) for number in range(len(self.names))]

    def names_of(self, target: Sequence[float]) -> list[str]:
        """The labels of a target; none of a regression's."""
        match self.problem:
            case "Regression":
                return []
            case "SingleLabel":
                return [self.names[int(target[0])]]
            case "MultiLabel":
                return [name for name, value in zip(self.names, target, strict=True) if value]

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
        text = ", ".join(self.names_of(target.tolist())) or "none"
        if self.problem == "Regression":
            text = f"{target.item():g}"
        return text_block("label", text, trained=True)

    def count_terms(self, targets: torch.Tensor) -> float:
        """Known targets, of which MultiLabel has one for each label; where labels have weights, the sum of these."""
        is_known = ~targets.isnan()
        if self.weights is None:
            return int(is_known.sum())
        return float(self.weights[targets[is_known].long()].sum(dtype=torch.float64))

    def config_overrides(self) -> dict[str, Any]:
        """Fields of the model's configuration: the number of outputs, and their names."""
        # A source's names would contradict the number of outputs.
        outputs = super().config_overrides() if self.names else {"id2label": {0: "LABEL_0"}, "label2id": {"LABEL_0": 0}}
        return {"problem_type": PROBLEM_TYPES[self.problem]} | outputs

    @property
    def _is_balanced(self) -> bool:
        return self._config.class_weighting == "Balanced"

    def _collect_single_labels(self, rows: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        counts: Counter[str] = Counter()
        if not self.given or self._is_balanced:
            column = ""
            for row in rows():
                column = row.columns["label"]
                if not is_missing(row.values["label"]):
                    counts[_single_name(row)] += 1
            if not self.given:
                counts = without_unknown(counts, column, self.field)
                validate_distinct(counts, counts.total(), column, self.field)
        names = self.choose(self.given or sort_labels(counts))
        statistics: dict[str, Any] = {"labels": names}
        if self._is_balanced:
            statistics["rows"] = [counts[label_name(name)] for name in names]
        return statistics

    def _collect_label_lists(self, rows: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """Reads the rows even if the document gives the labels: only all of them together show whether they are multi-hot."""
        counts: Counter[str] = Counter()
        detector = MultiHotDetector()
        column = ""
        for row in rows():
            column = row.columns["label"]
            if not is_missing(row.values["label"]):
                detector.add(row)
                counts.update(set(_names_in_list(row)))
        width = detector.width(self.given, self.field)
        if width is not None:
            return {"labels": multi_hot_names(width, self.given, self.source_head, self.field), "multiHot": True}
        return {"labels": self.choose(self.given or sort_labels(without_unknown(counts, column, self.field)))}

    def _ids_of(self, row: Row, names: Sequence[str]) -> list[int] | None:
        """The numbers of these labels; None if one of them means that the row has no label."""
        ids = []
        for name in names:
            if name not in self._ids:
                if name == UNKNOWN:
                    return None
                raise self.unknown_label(row, "label", name)
            ids.append(self._ids[name])
        return ids


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


def balanced_weights(counts: Sequence[int]) -> torch.Tensor:
    """Weights that give all labels the same total, [labels] float32, from the rows of each.

    As scikit-learn's `balanced`: rows / (labels x rows of the label).
    """
    return torch.tensor([sum(counts) / (len(counts) * max(count, 1)) for count in counts])


def _single_name(row: Row) -> str:
    label = row.values["label"]
    if isinstance(label, list) or (isinstance(label, float) and not label.is_integer()):
        raise row.error_for("label", f"is {label!r}, and SingleLabel needs one label: correct the row or set the problem")
    return label_name(label)


def _names_in_list(row: Row) -> list[str]:
    label = row.values["label"]
    if not isinstance(label, list):
        raise row.error_for("label", f"is {label!r}, and MultiLabel needs a list of labels: correct the row")
    for item in label:
        if is_missing(item) or isinstance(item, list | dict) or (isinstance(item, float) and not item.is_integer()):
            raise row.error_for(
                "label", f"has {item!r} in its list, neither a label nor the 0 or 1 of a multi-hot vector: correct the row"
            )
    return [label_name(item) for item in label]


def _finite_number(row: Row) -> list[float] | None:
    """The number of a row, None for NaN."""
    label = row.values["label"]
    try:
        value = float(label)
    except (TypeError, ValueError):
        raise _not_a_number(row) from None
    if isinstance(label, bool) or np.isinf(value):
        raise _not_a_number(row)
    return None if np.isnan(value) else [value]


def _not_a_number(row: Row) -> DataError:
    label = row.values["label"]
    return row.error_for("label", f"is {label!r}, and Regression needs a finite number: correct the row")
