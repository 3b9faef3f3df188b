"""Labels of a classification: their names in the data, and metrics from counts that add up over batches and ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

Counts = np.ndarray[Any, Any]
MOST_IN_MATRIX = 100  # labels


def name_of(label: Any) -> str:
    """A label as the model's configuration names it; 1 and True in JSON are as good as the string in CSV."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def in_order(names: Iterable[str]) -> list[str]:
    """Distinct names, numbers by their value and all else by the alphabet: the same on every machine."""
    distinct = set(names)
    if all(name.lstrip("-").isdecimal() for name in distinct):
        return sorted(distinct, key=int)
    return sorted(distinct)


def counts(predicted: torch.Tensor, actual: torch.Tensor) -> torch.Tensor:
    """For boolean [rows, labels]: true positives, predictions and occurrences of each label, [3 x labels] float64."""
    return torch.cat([(predicted & actual).sum(0), predicted.sum(0), actual.sum(0)]).double()


def pair_counts(predicted: torch.Tensor, actual: torch.Tensor, labels: int) -> torch.Tensor:
    """For one label a row, [rows] int64: how often each was taken for each, [labels x labels] float64, the actual one first.

    Of more labels than `MOST_IN_MATRIX` it is `counts`, as memory and checkpoints must not grow with their square.
    """
    if labels > MOST_IN_MATRIX:
        return counts(functional.one_hot(predicted, labels).bool(), functional.one_hot(actual, labels).bool())
    return torch.bincount(actual * labels + predicted, minlength=labels**2).double()


def counts_of_pairs(statistics: Counts, labels: int) -> Counts:
    """What `counts` would have given, out of `pair_counts`."""
    if labels > MOST_IN_MATRIX:
        return statistics
    matrix = statistics.reshape(labels, labels)
    return np.concatenate([matrix.diagonal(), matrix.sum(0), matrix.sum(1)])


def confusion(statistics: Counts, names: Sequence[str]) -> dict[str, Any]:
    """The matrix of `pair_counts` as a table: a row for each actual label, a column for each predicted one; or no table."""
    if len(names) > MOST_IN_MATRIX:
        return {}
    matrix = statistics.reshape(len(names), len(names)).astype(int).tolist()
    return {"confusion": {"labels": list(names), "counts": matrix}}


def scores(statistics: Counts, names: Sequence[str]) -> dict[str, float]:
    """Precision, recall and F1 from `counts`: of each label, their mean over labels, and of all labels together (micro).

    As scikit-learn defines them with zero_division=0, over the labels that occur or were predicted.
    """
    hits, predicted, actual = statistics.reshape(3, -1)
    seen = (predicted + actual) > 0
    precision, recall = _share(hits, predicted), _share(hits, actual)
    f1 = _share(2 * hits, predicted + actual)
    micro = _share(2 * hits.sum(keepdims=True), (predicted + actual).sum(keepdims=True))[0]
    of_each = {f"f1[{name}]": float(value) for name, value in zip(names, f1, strict=True)} if len(names) <= 20 else {}
    means = {"precision": precision, "recall": recall, "f1": f1}
    return {name: float(values[seen].mean()) if seen.any() else 0.0 for name, values in means.items()} | {
        "microF1": float(micro)
    } | of_each  # fmt: skip


def matthews(statistics: Counts) -> float:
    """Matthews' correlation for one label a row (Gorodkin 2004), 0 where it is not defined."""
    hits, predicted, actual = statistics.reshape(3, -1)
    rows, right = actual.sum(), hits.sum()
    spread = (rows**2 - (predicted**2).sum()) * (rows**2 - (actual**2).sum())
    return float((right * rows - (predicted * actual).sum()) / np.sqrt(spread)) if spread > 0 else 0.0


def _share(part: Counts, whole: Counts) -> Counts:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
