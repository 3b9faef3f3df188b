"""Training rows whose texts are in the evaluation data, word for word or nearly."""

from __future__ import annotations

import numpy as np

from finetune_trainer.data.checks.base import RowCheck
from finetune_trainer.data.checks.sketches import Sketches
from finetune_trainer.data.checks.statistics import RowMask, RowStatistics
from finetune_trainer.data.sources.stream import EVALUATION, TRAINING_SPLITS, Split


def similar_to_any(sketches: Sketches, others: Sketches) -> list[int]:
    """Positions of the rows in `sketches` that are similar to a row in `others`."""
    positions: list[int] = []
    if len(sketches) == 0:
        return positions  # most runs have no replay rows, and the index of the others takes seconds to build
    index = others.index()
    for position, sketch in sketches.items():
        if index.has_similar(sketch):
            positions.append(position)
    return positions


def find(statistics: RowStatistics, split: Split) -> RowMask:
    """Marks the rows with texts of the evaluation rows."""
    sketches, digests = statistics.sketches, statistics.text_digests
    similar = statistics.mask_of(similar_to_any(sketches[split], sketches[EVALUATION]))
    evaluation = digests[statistics.in_split(EVALUATION)]
    return similar | statistics.mask_within(split, lambda rows: np.isin(digests[rows], evaluation))


LEAKAGE = RowCheck(
    name="leakage",
    description="with texts of the evaluation data",
    advice="remove them, or set data.checks.leakage: Drop",
    policy=lambda checks: checks.leakage,
    find=find,
    splits=TRAINING_SPLITS,
)
