"""Training rows whose texts nearly repeat an earlier one of their split."""

from __future__ import annotations

from finetune_trainer.data.checks import duplicates
from finetune_trainer.data.checks.base import RowCheck
from finetune_trainer.data.checks.sketches import SimilarityIndex, Sketches
from finetune_trainer.data.checks.statistics import RowMask, RowStatistics
from finetune_trainer.data.sources.stream import TRAINING_SPLITS, Split


def similar_to_earlier(sketches: Sketches) -> list[int]:
    """Positions of the rows that are similar to an earlier one."""
    index = SimilarityIndex()
    positions = []
    for position, sketch in sketches.items():
        if not index.add(sketch):
            positions.append(position)
    return positions


def find(statistics: RowStatistics, split: Split) -> RowMask:
    """Marks similar rows, without those that repeat an earlier row or its texts word for word."""
    similar = statistics.mask_of(similar_to_earlier(statistics.sketches[split]))
    text_digests = statistics.text_digests
    same_texts = statistics.mask_within(split, lambda rows: duplicates.repeated(text_digests[rows]))
    return similar & ~same_texts & ~duplicates.find(statistics, split)


def _detail(statistics: RowStatistics, split: Split) -> str:
    if len(statistics.sketches[split]) < statistics.max_compared:
        return ""
    return f"only the first {statistics.max_compared:,} were compared"


NEAR_DUPLICATES = RowCheck(
    name="nearDuplicates",
    description="that nearly repeat an earlier one",
    advice="remove them, or set data.checks.nearDuplicates: Drop",
    policy=lambda checks: checks.near_duplicates,
    find=find,
    detail=_detail,
    splits=TRAINING_SPLITS,
)
