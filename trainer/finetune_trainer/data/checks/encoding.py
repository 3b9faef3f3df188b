"""Checks of what encoding did to the rows: lost ends, rows without a label, and rows without anything to learn."""

from __future__ import annotations

from finetune_trainer.data.checks.base import Check

TRUNCATION = Check(
    name="truncation",
    description="longer than maxLength",
    advice="raise data.maxLength, or set data.checks.truncation: Warn",
    policy=lambda checks: checks.truncation,
)
QUESTION_TRUNCATION = Check(
    name="longQuestions",
    description="with questions longer than half of maxLength",
    advice="raise data.maxLength, or set data.checks.truncation: Warn",
    policy=lambda checks: checks.truncation,
)
TARGET_TRUNCATION = Check(
    name="longTargets",
    description="with targets longer than maxTargetLength",
    advice="raise objective.seq2Seq.maxTargetLength, or set data.checks.truncation: Warn",
    policy=lambda checks: checks.truncation,
)
UNLABELED = Check(
    name="unlabeled",
    description="without a label",
    advice="label or remove them, or set data.checks.unlearnable: Warn",
    policy=lambda checks: checks.unlearnable,
)
INCONSISTENT_TAGS = Check(
    name="tags",
    description="with tags that break the rules of their scheme",
    advice="correct them",
    policy=lambda checks: "Warn",  # there is no policy for it in the document
)
UNLEARNABLE = Check(
    name="unlearnable",
    description="without anything to learn",
    advice="fill or remove them, or set data.checks.unlearnable: Warn",
    policy=lambda checks: checks.unlearnable,
)
