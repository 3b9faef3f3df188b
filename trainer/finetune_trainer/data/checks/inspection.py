"""Inspects all rows before they are encoded, and applies the policies of the checks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finetune_trainer.config import DataChecksConfig
from finetune_trainer.data.checks.base import RowCheck
from finetune_trainer.data.checks.detectors import detector_for
from finetune_trainer.data.checks.duplicates import DUPLICATES
from finetune_trainer.data.checks.leakage import LEAKAGE
from finetune_trainer.data.checks.near_duplicates import NEAR_DUPLICATES
from finetune_trainer.data.checks.personal_data import PERSONAL_DATA
from finetune_trainer.data.checks.report import Action, Finding
from finetune_trainer.data.checks.statistics import RowMask, RowStatistics, collect_statistics
from finetune_trainer.data.progress import ProgressTracker
from finetune_trainer.data.records.row import Row, rewrite_texts
from finetune_trainer.data.sources.stream import EVALUATION, SPLITS, RowStream, Split
from finetune_trainer.protocol.outcome import DataError

ROW_CHECKS: tuple[RowCheck, ...] = (DUPLICATES, PERSONAL_DATA, LEAKAGE, NEAR_DUPLICATES)
"""The order decides which of several failed checks ends the run."""
ACTIONS: dict[str, Action] = {"Drop": "dropped", "Scrub": "scrubbed"}


@dataclass(frozen=True)
class InspectedRows:
    """The rows after the policies Drop and Scrub, and the findings."""

    stream: RowStream
    findings: list[Finding]
    compared: dict[Split, int]
    """Rows of each split that were compared with others for similarity."""
    rows: dict[Split, int]
    """Rows of each split in the stream."""


@dataclass(frozen=True)
class FlaggedRows:
    """The rows of one split that a check found."""

    check: RowCheck
    split: Split
    mask: RowMask


def inspect(stream: RowStream, checks: DataChecksConfig, progress: ProgressTracker) -> InspectedRows:
    """Read all rows and run the checks; raises DataError for a finding whose policy is Fail."""
    statistics = collect_statistics(stream, checks, progress)
    flagged = _flag_rows(statistics, checks)
    findings = _report_findings(flagged, statistics, checks, stream)
    dropped = _dropped_rows(flagged, checks, len(statistics))
    remaining = stream.without(dropped) if dropped.any() else stream
    if checks.personal_data == "Scrub":
        remaining = _scrub(remaining, checks)
    return InspectedRows(
        stream=remaining,
        findings=findings,
        compared={split: len(sketches) for split, sketches in statistics.sketches.items()},
        rows={split: int((statistics.in_split(split) & ~dropped).sum()) for split in SPLITS},
    )


def _flag_rows(statistics: RowStatistics, checks: DataChecksConfig) -> list[FlaggedRows]:
    flagged = []
    for split in SPLITS:
        for check in ROW_CHECKS:
            if _is_checked(check, split, check.policy(checks)):
                flagged.append(FlaggedRows(check, split, check.find(statistics, split)))
    return flagged


def _is_checked(check: RowCheck, split: Split, policy: str) -> bool:
    if check is DUPLICATES and split == EVALUATION and policy != "Warn":
        return False  # repeated evaluation rows are reported, but neither dropped nor refused
    return policy != "Ignore" and split in check.splits


def _dropped_rows(flagged: list[FlaggedRows], checks: DataChecksConfig, count: int) -> RowMask:
    dropped = np.zeros(count, np.bool_)
    for rows in flagged:
        if rows.check.policy(checks) == "Drop":
            dropped |= rows.mask
    return dropped


def _scrub(stream: RowStream, checks: DataChecksConfig) -> RowStream:
    scrub = detector_for(checks).scrub

    def scrub_row(row: Row) -> Row:
        return rewrite_texts(row, scrub, "spec.data.checks.personalData")

    return stream.map(scrub_row)


def _report_findings(
    flagged: list[FlaggedRows], statistics: RowStatistics, checks: DataChecksConfig, stream: RowStream
) -> list[Finding]:  # fmt: skip
    """A finding for each check that flagged rows; raises DataError for the first whose policy is Fail."""
    nonempty = [rows for rows in flagged if rows.mask.any()]
    origins = stream.origins(int(rows.mask.argmax()) for rows in nonempty)
    findings = []
    for rows in nonempty:
        policy = rows.check.policy(checks)
        finding = Finding(
            check=rows.check.name,
            split=rows.split,
            rows=int(rows.mask.sum()),
            of=int(statistics.in_split(rows.split).sum()),
            first=origins[int(rows.mask.argmax())],
            detail=rows.check.detail(statistics, rows.split),
            done=ACTIONS.get(policy, ""),
        )
        if policy == "Fail":
            raise DataError(finding.error)
        findings.append(finding)
    return findings
