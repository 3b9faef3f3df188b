"""Metrics of classifications, computed from counts that add up over batches and ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from finetune_trainer.data.loading.collate import Batch
from finetune_trainer.objectives.base import BatchStatistics, Metrics, Statistics
from finetune_trainer.objectives.inputs.class_labels import ClassLabels
from finetune_trainer.objectives.losses.classification import ClassificationLoss

MAX_MATRIX_LABELS = 100
"""More labels have no confusion matrix, as memory and checkpoints must not grow with their square."""
MAX_LABELS_WITH_F1 = 20
"""More labels have no F1 of their own in the metrics."""


def classification_metrics(loss: ClassificationLoss, labels: ClassLabels) -> Metrics[Batch]:
    """The metrics of the problem that the document sets."""
    if labels.problem == "Regression":
        return RegressionMetrics(loss)
    return ClassificationMetrics(loss, labels)


class ClassificationMetrics(Metrics[Batch]):
    """Accuracy, precision, recall and F1, and for single labels Matthews' correlation and the confusion matrix."""

    def __init__(self, loss: ClassificationLoss, labels: ClassLabels) -> None:
        self.loss = loss
        self.labels = labels

    @property
    def scored_labels(self) -> list[str]:
        """Each label, unless there are many."""
        return self.labels.names if len(self.labels.names) <= MAX_LABELS_WITH_F1 else []

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: counts of labels, then rows with all labels correct, and all rows."""
        outputs, labels = self.loss.forward(model, batch), batch.targets["labels"]
        rows = ~labels[:, 0].isnan()
        losses = self.loss.from_outputs(outputs, batch, 0.0)
        return BatchStatistics(losses, self._count(outputs.logits.float()[rows], labels[rows]).cpu())

    def compute(self, losses: Sequence[float], statistics: Statistics) -> dict[str, float]:
        """`loss`, `accuracy`, those of `precision_recall_f1` and, for single labels, `matthews`."""
        counts, (correct, rows) = statistics[:-2], statistics[-2:]
        is_single_label = self.labels.problem == "SingleLabel"
        if is_single_label:
            counts = label_counts_from_pairs(counts, len(self.labels.names))
        metrics = {"loss": losses[0], "accuracy": float(correct / max(rows, 1))}
        metrics |= precision_recall_f1(counts, self.labels.names)
        if is_single_label:
            metrics["matthews"] = matthews_correlation(counts)
        return metrics

    def tables(self, statistics: Statistics) -> dict[str, Any]:
        """For single labels the confusion matrix."""
        if self.labels.problem != "SingleLabel":
            return {}
        return confusion_table(statistics[:-2], self.labels.names)

    def _count(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.labels.problem == "SingleLabel":
            predicted, actual = logits.argmax(1), labels[:, 0].long()
            is_correct = predicted == actual
            counts = count_pairs(predicted, actual, logits.shape[1])
        else:
            is_predicted, is_actual = logits > 0, labels > 0
            is_correct = (is_predicted == is_actual).all(1)
            counts = count_labels(is_predicted, is_actual)
        rows = torch.tensor([int(is_correct.sum()), len(is_correct)], dtype=torch.float64, device=logits.device)
        return torch.cat([counts, rows])


class RegressionMetrics(Metrics[Batch]):
    """Squared and absolute error, the share of the variance that is explained, and Pearson's correlation."""

    def __init__(self, loss: ClassificationLoss) -> None:
        self.loss = loss

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: the number of rows, and the sums over rows that `compute` needs."""
        outputs, labels = self.loss.forward(model, batch), batch.targets["labels"]
        losses = self.loss.from_outputs(outputs, batch, 0.0)
        rows = ~labels[:, 0].isnan()
        predicted, actual = outputs.logits.float()[rows][:, 0].double(), labels[rows][:, 0].double()
        error = predicted - actual
        terms = [
            torch.ones_like(actual), predicted, actual, predicted**2, actual**2, predicted * actual, error**2, error.abs(),
        ]  # fmt: skip
        return BatchStatistics(losses, torch.stack([term.sum() for term in terms]).cpu())

    def compute(self, losses: Sequence[float], statistics: Statistics) -> dict[str, float]:
        """`loss`, `mse`, `mae` and, where the values vary, `r2` and `pearson`, which is 0 for equal predictions."""
        metrics = {"loss": losses[0]}
        rows, predicted, actual, predicted_squared, actual_squared, product, error_squared, error = statistics.tolist()
        if not rows:
            return metrics
        metrics |= {"mse": error_squared / rows, "mae": error / rows}
        actual_variance = actual_squared - actual**2 / rows
        predicted_variance = predicted_squared - predicted**2 / rows
        if actual_variance > 0:
            covariance = product - predicted * actual / rows
            spread = math.sqrt(actual_variance * max(predicted_variance, 0))
            metrics["r2"] = 1 - error_squared / actual_variance
            metrics["pearson"] = covariance / spread if spread > 0 else 0.0
        return metrics


def count_labels(predicted: torch.Tensor, actual: torch.Tensor) -> torch.Tensor:
    """For boolean [rows, labels]: true positives, predictions and occurrences of each label, [3 x labels] float64."""
    return torch.cat([(predicted & actual).sum(0), predicted.sum(0), actual.sum(0)]).double()


def count_pairs(predicted: torch.Tensor, actual: torch.Tensor, labels: int) -> torch.Tensor:
    """For one label a row, [rows] int64: the confusion matrix [labels x labels] float64, actual labels first.

    For more than `MAX_MATRIX_LABELS` labels it is the result of `count_labels`.
    """
    if labels > MAX_MATRIX_LABELS:
        return count_labels(functional.one_hot(predicted, labels).bool(), functional.one_hot(actual, labels).bool())
    return torch.bincount(actual * labels + predicted, minlength=labels**2).double()


def label_counts_from_pairs(statistics: Statistics, labels: int) -> Statistics:
    """The result of `count_labels`, computed from that of `count_pairs`."""
    if labels > MAX_MATRIX_LABELS:
        return statistics
    matrix = statistics.reshape(labels, labels)
    return np.concatenate([matrix.diagonal(), matrix.sum(0), matrix.sum(1)])


def confusion_table(statistics: Statistics, names: Sequence[str]) -> dict[str, Any]:
    """The matrix of `count_pairs` as a table: a row for each actual label, a column for each predicted one."""
    if len(names) > MAX_MATRIX_LABELS:
        return {}
    matrix = statistics.reshape(len(names), len(names)).astype(int).tolist()
    return {"confusion": {"labels": list(names), "counts": matrix}}


def precision_recall_f1(statistics: Statistics, names: Sequence[str]) -> dict[str, float]:
    """Precision, recall and F1 from `count_labels`: for each label, averaged over labels (macro), and pooled (micro).

    As scikit-learn defines them with zero_division=0, over the labels that occur or were predicted.
    """
    counts = statistics.reshape(3, -1)
    by_label, pooled = _rates(counts), _rates(counts.sum(1, keepdims=True))
    is_used = counts[1:].any(0)
    metrics = {name: float(values[is_used].mean()) if is_used.any() else 0.0 for name, values in by_label.items()}
    metrics |= {f"micro{name.capitalize()}": float(value[0]) for name, value in pooled.items()}
    if len(names) <= MAX_LABELS_WITH_F1:
        metrics |= {f"f1[{name}]": float(value) for name, value in zip(names, by_label["f1"], strict=True)}
    return metrics


def matthews_correlation(statistics: Statistics) -> float:
    """Matthews' correlation for one label a row (Gorodkin 2004), 0 where it is undefined."""
    hits, predicted, actual = statistics.reshape(3, -1)
    rows, correct = actual.sum(), hits.sum()
    spread = (rows**2 - (predicted**2).sum()) * (rows**2 - (actual**2).sum())
    if spread <= 0:
        return 0.0
    return float((correct * rows - (predicted * actual).sum()) / np.sqrt(spread))


def _rates(counts: Statistics) -> dict[str, Statistics]:
    hits, predicted, actual = counts
    return {
        "precision": _divide(hits, predicted), "recall": _divide(hits, actual), "f1": _divide(2 * hits, predicted + actual)
    }  # fmt: skip


def _divide(part: Statistics, whole: Statistics) -> Statistics:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
