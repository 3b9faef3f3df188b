"""Rows with personal data. The kinds depend on the detector of `data.checks.personalDataDetector`."""

from __future__ import annotations

import numpy as np

from finetune_trainer.data.checks.base import RowCheck
from finetune_trainer.data.checks.statistics import RowMask, RowStatistics
from finetune_trainer.data.sources.stream import Split


def _find(statistics: RowStatistics, split: Split) -> RowMask:
    personal: RowMask = np.frombuffer(bytes(statistics.personal), np.bool_)
    return personal & statistics.in_split(split)


def _detail(statistics: RowStatistics, split: Split) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in statistics.kinds[split].most_common())


PERSONAL_DATA = RowCheck(
    name="personalData",
    description="with personal data",
    advice="remove it, or set data.checks.personalData to Scrub or Drop",
    policy=lambda checks: checks.personal_data,
    find=_find,
    detail=_detail,
)
