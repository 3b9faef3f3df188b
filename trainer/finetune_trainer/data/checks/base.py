"""The definition of a data check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from finetune_trainer.config import DataChecksConfig
from finetune_trainer.data.checks.statistics import RowMask, RowStatistics
from finetune_trainer.data.sources.stream import SPLITS, Split

CheckName = Literal[
    "leakage",
    "personalData",
    "unlabeled",
    "unanswered",
    "identicalAnswers",
    "unlearnable",
    "tags",
    "lostAnswers",
    "untokenizedWords",
    "truncation",
    "longQuestions",
    "longTargets",
    "unwrittenNames",
    "openEnd",
    "duplicates",
    "nearDuplicates",
    "balance",
]


@dataclass(frozen=True)
class Check:
    """A data check: its name in `data.checks`, its policy, and the wording of its findings."""

    name: CheckName
    description: str
    """Follows "N of M training rows"; it has no verb, so that it fits one row and many."""
    advice: str
    policy: Callable[[DataChecksConfig], str]


def always_warn(checks: DataChecksConfig) -> str:
    """The policy of a check that has none in the document."""
    return "Warn"


def _no_detail(statistics: RowStatistics, split: Split) -> str:
    return ""


@dataclass(frozen=True)
class RowCheck(Check):
    """A check that finds rows before they are encoded."""

    find: Callable[[RowStatistics, Split], RowMask]
    """Marks the rows of one split that have the problem."""
    detail: Callable[[RowStatistics, Split], str] = _no_detail
    """What a finding adds to the description."""
    splits: tuple[Split, ...] = SPLITS
