"""The number of rows with each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from finetune_trainer.data.records.roles import label_name

MAX_LABELS = 10_000  # a column with more distinct values holds no labels


class LabelCounts:
    """Counts labels; it discards all counts when a value turns out not to be a label."""

    def __init__(self) -> None:
        self._counts: Counter[str] | None = Counter()

    def add(self, value: Any) -> None:
        """Count a row's label or list of labels; a float is a regression target and not a label."""
        if self._counts is None or value is None:
            return
        labels = value if isinstance(value, list) else [value]
        if any(isinstance(label, float | dict | list) for label in labels):
            self._counts = None
            return
        self._counts.update(map(label_name, labels))
        if len(self._counts) > MAX_LABELS:
            self._counts = None

    @property
    def counts(self) -> Mapping[str, int]:
        """Rows of each label, the most frequent first; empty if the data has no labels."""
        return dict(sorted((self._counts or {}).items(), key=lambda item: (-item[1], item[0])))
