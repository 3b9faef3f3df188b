"""Labels of a classification: their names in the data, and metrics from counts that add up over batches and ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from finetune_trainer.data.labels import name_of

__all__ = ["balancing", "counts", "in_order", "matthews", "name_of", "scores"]

Counts = np.ndarray[Any, Any]


def in_order(names: Iterable[str]) -> list[str]:
    """Distinct names, numbers by their value and all else by the alphabet: the same on every machine."""
    distinct = set(names)
    if all(name.lstrip("-").isdecimal() for name in distinct):
        return sorted(distinct, key=int)
    return sorted(distinct)


def balancing(rows: Sequence[int]) -> torch.Tensor:
    """Weights with which all labels count alike, [labels] float32: as scikit-learn's `balanced`, rows / (labels x its rows)."""
    return torch.tensor([sum(rows) / (len(rows) * max(count, 1)) for count in rows])


def counts(predicted: torch.Tensor, actual: torch.Tensor) -> torch.Tensor:
    """For boolean [rows, labels]: true positives, predictions and occurrences of each label, [3 x labels] float64."""
    return torch.cat([(predicted & actual).sum(0), predicted.sum(0), actual.sum(0)]).double()


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
