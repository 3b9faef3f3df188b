"""How many rows each label has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from finetune_trainer.data.records.roles import label_name

MOST_LABELS = 10_000  # what has more different values is no label
SHOWN = 20
LOPSIDED = 10  # times as many rows of one label as of another


class Balance:
    """Counts labels; of what turns out to be none, it keeps nothing."""

    def __init__(self) -> None:
        self._counts: Counter[str] | None = Counter()

    def see(self, label: Any) -> None:
        """Count a row's label or labels; a number with a fraction is a value and no label."""
        if self._counts is None or label is None:
            return
        labels = label if isinstance(label, list) else [label]
        if any(isinstance(one, float | dict | list) for one in labels):
            self._counts = None
            return
        self._counts.update(map(label_name, labels))
        if len(self._counts) > MOST_LABELS:
            self._counts = None

    @property
    def counts(self) -> Mapping[str, int]:
        """Rows of each label, the most frequent first; empty where there are no labels."""
        return dict(sorted((self._counts or {}).items(), key=lambda item: (-item[1], item[0])))
