"""Checks of what encoding did to the rows: lost ends, and rows without anything to learn."""

from __future__ import annotations

from finetune_trainer.data.checks.base import Check

TRUNCATION = Check(
    name="truncation",
    description="longer than maxLength",
    advice="raise data.maxLength, or set data.checks.truncation: Warn",
    policy=lambda checks: checks.truncation,
)
UNLEARNABLE = Check(
    name="unlearnable",
    description="without anything to learn",
    advice="fill or remove them, or set data.checks.unlearnable: Warn",
    policy=lambda checks: checks.unlearnable,
)
