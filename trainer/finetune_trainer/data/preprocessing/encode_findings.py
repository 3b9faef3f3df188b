"""Findings of encoding: truncated rows, rows without anything to learn, and splits without any usable row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune_trainer import config
from finetune_trainer.data.checks import encoding
from finetune_trainer.data.checks.balance import BALANCE, find_imbalance
from finetune_trainer.data.checks.base import Check
from finetune_trainer.data.checks.report import Action, Finding
from finetune_trainer.data.preprocessing.examples import EncodeCounts, EncodeIssue, EncodeStatus
from finetune_trainer.data.sources.stream import EVALUATION, REPLAY, TRAIN, Split
from finetune_trainer.protocol.outcome import DataError, InsufficientDataError


@dataclass(frozen=True)
class EncodeCheck:
    """A check that finds the rows with one of several statuses or issues."""

    check: Check
    statuses: Sequence[EncodeStatus | EncodeIssue]
    action: Action


ENCODE_CHECKS = (
    EncodeCheck(encoding.TRUNCATION, (EncodeIssue.LONG_TEXT,), "cut or dropped"),
    EncodeCheck(encoding.QUESTION_TRUNCATION, (EncodeIssue.LONG_QUESTION,), "cut or dropped"),
    EncodeCheck(encoding.TARGET_TRUNCATION, (EncodeIssue.LONG_TARGET,), "cut or dropped"),
    EncodeCheck(encoding.LOST_ANSWERS, (EncodeIssue.LOST_ANSWER,), ""),
    EncodeCheck(encoding.UNTOKENIZED_WORDS, (EncodeIssue.UNTOKENIZED_WORDS,), ""),
    EncodeCheck(encoding.UNLABELED, (EncodeStatus.UNLABELED,), "left out"),
    EncodeCheck(encoding.UNANSWERED, (EncodeStatus.UNANSWERED,), "left out"),
    EncodeCheck(encoding.IDENTICAL_ANSWERS, (EncodeStatus.IDENTICAL,), "left out"),
    EncodeCheck(encoding.UNLEARNABLE, (EncodeStatus.EMPTY, EncodeStatus.MASKED), "left out"),
    EncodeCheck(encoding.INCONSISTENT_TAGS, (EncodeIssue.INCONSISTENT_TAGS,), ""),
    EncodeCheck(encoding.UNWRITTEN_NAMES, (EncodeIssue.UNWRITTEN_NAMES,), ""),
    EncodeCheck(encoding.OPEN_END, (EncodeIssue.OPEN_END,), ""),
)
LOSSES = {
    EncodeStatus.MASKED: "have nothing to learn within that length",
    EncodeStatus.UNLABELED: "have no label",
    EncodeStatus.UNANSWERED: "have no answer",
    EncodeStatus.IDENTICAL: "have two equal answers",
}
"""What a number of rows with a status have, for the error about a split without examples."""


def encode_findings(counts: Mapping[Split, EncodeCounts], checks: config.DataChecksConfig) -> list[Finding]:
    """The findings in all splits; raises DataError for one whose policy is Fail."""
    findings = []
    for split, split_counts in counts.items():
        for encode_check in ENCODE_CHECKS:
            finding = _find(encode_check, split, split_counts)
            policy = encode_check.check.policy(checks)
            if finding is None or policy == "Ignore":
                continue
            if policy == "Fail":
                raise DataError(finding.error)
            findings.append(finding)
    if imbalance := find_imbalance(counts[TRAIN].label_balance):
        findings.append(
            Finding(check=BALANCE.name, split=TRAIN, rows=imbalance.rows, of=imbalance.total, detail=imbalance.detail)
        )
    return findings


def _find(encode_check: EncodeCheck, split: Split, counts: EncodeCounts) -> Finding | None:
    present = [status for status in encode_check.statuses if counts.statuses[status]]
    if not present:
        return None
    return Finding(
        check=encode_check.check.name,
        split=split,
        rows=sum(counts.statuses[status] for status in present),
        of=counts.rows,
        first=counts.first_origins[present[0]],
        done=encode_check.action,
    )


def validate_examples(spec: config.TrainSpec, counts: Mapping[Split, EncodeCounts], findings: Sequence[Finding]) -> None:
    """Raises InsufficientDataError if a split that the document asks for has no examples."""
    data, train, evaluation = spec.data, counts[TRAIN], counts[EVALUATION]
    if not train.examples:
        losses = _explain_losses(train, data, _dropped(findings, TRAIN))
        raise InsufficientDataError(
            f"spec.data.train: nothing is left to learn from ({losses}): add data, or change overlong or checks"
        )
    if spec.training.replay and not counts[REPLAY].examples:
        losses = _explain_losses(counts[REPLAY], data, _dropped(findings, REPLAY))
        raise InsufficientDataError(
            f"spec.data.replay: nothing is left to replay ({losses}): add data, or change overlong or checks"
        )
    if evaluation.examples:
        return
    if data.evaluation:
        losses = _explain_losses(evaluation, data, [])
        raise InsufficientDataError(f"spec.data.evaluation: nothing is left to evaluate on ({losses}): add data")
    if data.evaluation_fraction:
        raise InsufficientDataError(
            f"spec.data.evaluationFraction: {data.evaluation_fraction:g} of {train.rows} documents held out none that "
            "could be used: raise it, give data.evaluation, or split text files by data.train[].text.rowsAre"
        )
    if data.folds:
        raise InsufficientDataError(
            f"spec.data.folds: fold {data.folds.hold} of {data.folds.count} has none of the {train.rows} documents that "
            "could be used: lower count, or give data.evaluation"
        )


def _dropped(findings: Sequence[Finding], split: Split) -> list[Finding]:
    return [finding for finding in findings if finding.split == split and finding.done == "dropped"]


def _explain_losses(counts: EncodeCounts, data: config.DataConfig, dropped: Sequence[Finding]) -> str:
    statuses = counts.statuses
    losses = [
        f"of {counts.rows} documents {statuses[EncodeStatus.EMPTY]} are empty and "
        f"{statuses[EncodeStatus.DROPPED]} longer than {_limit(statuses, data)}"
    ]
    for status, description in LOSSES.items():
        if statuses[status]:
            losses.append(f"{statuses[status]} {description}")
    for finding in dropped:
        losses.append(f"data.checks.{finding.check} dropped {finding.rows}")
    return "; ".join(losses)


def _limit(statuses: Mapping[EncodeStatus | EncodeIssue, int], data: config.DataConfig) -> str:
    """The limits that rows exceeded."""
    limits = []
    if statuses[EncodeIssue.LONG_TARGET]:
        limits.append("maxTargetLength (their targets)")
    if statuses[EncodeIssue.LONG_QUESTION]:
        limits.append(f"half of maxLength {data.max_length} (their questions)")
    if statuses[EncodeIssue.LONG_TEXT] or not limits:
        limits.insert(0, f"maxLength {data.max_length}")
    return " or ".join(limits)
