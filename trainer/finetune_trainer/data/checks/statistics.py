"""Statistics of all rows, collected in one pass before they are encoded; the checks are computed from them."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.config import DataChecksConfig
from finetune_trainer.data.checks.detectors import detector_for
from finetune_trainer.data.checks.sketches import Sketches
from finetune_trainer.data.progress import ProgressTracker
from finetune_trainer.data.records.digests import row_digest, text_digest
from finetune_trainer.data.records.row import texts
from finetune_trainer.data.sources.stream import SPLITS, RowStream, Split

RowMask = NDArray[np.bool_]
Digests = NDArray[np.uint64]


@dataclass
class RowStatistics:
    """18 bytes of each row, in the order of the stream, and sketches of the first `max_compared` rows of each split."""

    max_compared: int
    split_numbers: bytearray = field(default_factory=bytearray)
    """The split of each row, as its index in SPLITS."""
    row_digest_array: array[int] = field(default_factory=partial(array, "Q"))
    text_digest_array: array[int] = field(default_factory=partial(array, "Q"))
    personal: bytearray = field(default_factory=bytearray)
    """Whether each row holds personal data."""
    kinds: dict[Split, Counter[str]] = field(default_factory=lambda: {split: Counter() for split in SPLITS})
    sketches: dict[Split, Sketches] = field(init=False)

    def __post_init__(self) -> None:
        self.sketches = {split: Sketches(self.max_compared) for split in SPLITS}

    def __len__(self) -> int:
        return len(self.split_numbers)

    @property
    def row_digests(self) -> Digests:
        """The digest of each row's values."""
        return np.array(self.row_digest_array, np.uint64)

    @property
    def text_digests(self) -> Digests:
        """The digest of each row's texts."""
        return np.array(self.text_digest_array, np.uint64)

    def in_split(self, split: Split) -> RowMask:
        """Marks the rows of this split."""
        mask: RowMask = np.frombuffer(bytes(self.split_numbers), np.uint8) == SPLITS.index(split)
        return mask

    def mask_of(self, positions: Sequence[int]) -> RowMask:
        """Marks the rows at these positions."""
        mask = np.zeros(len(self), np.bool_)
        mask[positions] = True
        return mask

    def mask_within(self, split: Split, find: Callable[[RowMask], RowMask]) -> RowMask:
        """Marks rows of one split: `find` receives the mask of the split and returns one flag for each of its rows."""
        rows = self.in_split(split)
        mask = np.zeros(len(self), np.bool_)
        mask[rows] = find(rows)
        return mask


def collect_statistics(stream: RowStream, checks: DataChecksConfig, progress: ProgressTracker) -> RowStatistics:
    """Read all rows once; statistics that only ignored checks need stay empty."""
    needs_texts = {checks.near_duplicates, checks.leakage} != {"Ignore"}
    needs_rows = {checks.near_duplicates, checks.duplicates} != {"Ignore"}
    needs_personal = checks.personal_data != "Ignore"
    detector = detector_for(checks)
    statistics = RowStatistics(checks.compared_rows if needs_texts else 0)
    for position, (row, split, *_) in enumerate(stream):
        statistics.split_numbers.append(SPLITS.index(split))
        statistics.row_digest_array.append(row_digest(row) if needs_rows else 0)
        statistics.text_digest_array.append(text_digest(row) if needs_texts else 0)
        text = "\n".join(texts(row))
        statistics.sketches[split].add(position, text)
        kinds = detector.find(text) if needs_personal else Counter[str]()
        statistics.personal.append(bool(kinds))
        statistics.kinds[split] += kinds
        progress.advance()
    return statistics
