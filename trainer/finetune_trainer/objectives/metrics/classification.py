"""Labels of a classification: their names in the data, and metrics from counts that add up over batches and ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from finetune_trainer.data.records.roles import label_name
from finetune_trainer.data.records.row import Row
from finetune_trainer.protocol.outcome import DataError

__all__ = [
    "balancing",
    "confusion",
    "counts",
    "counts_of_pairs",
    "distinct",
    "in_order",
    "label_name",
    "matthews",
    "pair_counts",
    "scores",
    "settings",
    "unknown",
]  # fmt: skip

Counts = np.ndarray[Any, Any]
MOST_IN_MATRIX = 100  # labels


def in_order(names: Iterable[str]) -> list[str]:
    """Distinct names, numbers by their value and all else by the alphabet: the same on every machine."""
    distinct = set(names)
    if all(name.lstrip("-").isdecimal() for name in distinct):
        return sorted(distinct, key=int)
    return sorted(distinct)


def distinct(given: Sequence[str], found: Iterable[str]) -> list[str]:
    """The labels that the document gives, or else those found in the data; raises DataError if there is only one."""
    names = list(given) or in_order(found)
    if len(names) < 2:
        raise DataError(
            f"spec.data.train: every row has the same label {', '.join(names)!r}, so there is nothing to tell apart: add rows "
            "with other labels"
        )
    return names


def settings(names: Sequence[str]) -> dict[str, Any]:
    """Fields of the model's configuration: what its outputs are called, and so how many it has."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def unknown(record: Row, role: str, name: str, names: Iterable[str], field: str) -> DataError:
    """The error that a label of the record is none of `names`; `field` is where the document may give them."""
    some = ", ".join(list(names)[:20])
    return record.error_for(
        role, f"is {name!r}, which is none of the labels ({some}): correct the row, or set objective.{field}.labels"
    )


def balancing(rows: Sequence[int]) -> torch.Tensor:
    """Weights with which all labels count alike, [labels] float32: as scikit-learn's `balanced`, rows / (labels x its rows)."""
    return torch.tensor([sum(rows) / (len(rows) * max(count, 1)) for count in rows])


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
    counts = statistics.reshape(3, -1)
    of_each, pooled = _rates(counts), _rates(counts.sum(1, keepdims=True))
    seen = counts[1:].any(0)
    found = {name: float(values[seen].mean()) if seen.any() else 0.0 for name, values in of_each.items()}
    found |= {f"micro{name.capitalize()}": float(value[0]) for name, value in pooled.items()}
    if len(names) <= 20:
        found |= {f"f1[{name}]": float(value) for name, value in zip(names, of_each["f1"], strict=True)}
    return found


def matthews(statistics: Counts) -> float:
    """Matthews' correlation for one label a row (Gorodkin 2004), 0 where it is not defined."""
    hits, predicted, actual = statistics.reshape(3, -1)
    rows, right = actual.sum(), hits.sum()
    spread = (rows**2 - (predicted**2).sum()) * (rows**2 - (actual**2).sum())
    return float((right * rows - (predicted * actual).sum()) / np.sqrt(spread)) if spread > 0 else 0.0


def _rates(counts: Counts) -> dict[str, Counts]:
    hits, predicted, actual = counts
    return {
        "precision": _share(hits, predicted), "recall": _share(hits, actual), "f1": _share(2 * hits, predicted + actual)
    }  # fmt: skip


def _share(part: Counts, whole: Counts) -> Counts:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
