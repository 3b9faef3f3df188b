"""What encoding the rows showed: those that lost their end, those without anything to learn, and whether any is left."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_trainer import config
from finetune_trainer.data.checks.inspection import policy
from finetune_trainer.data.checks.report import Check, Finding
from finetune_trainer.data.preprocessing.examples import EncodeCounts, EncodeStatus
from finetune_trainer.data.sources.stream import EVALUATION, REPLAY, TRAIN, Split
from finetune_trainer.protocol.outcome import DataError

FATES: dict[Check, tuple[EncodeStatus, ...]] = {
    "truncation": (EncodeStatus.TRUNCATED, EncodeStatus.DROPPED), "unlearnable": (EncodeStatus.EMPTY, EncodeStatus.MASKED),
}  # fmt: skip


def findings(counts: Mapping[Split, EncodeCounts], spec: config.TrainSpec) -> list[Finding]:
    """What became of the rows, as findings; raises DataError for what a policy calls a failure."""
    found = []
    for side, known in counts.items():
        for check, statuses in FATES.items():
            rows = sum(known.statuses[status] for status in statuses)
            chosen = policy(spec.data.checks, check)
            if not rows or chosen == "Ignore":
                continue
            finding = Finding(
                check=check, side=side, rows=rows, of=known.rows,
                first=next(known.firsts[status] for status in statuses if status in known.firsts),
                done="cut or dropped" if check == "truncation" else "left out",
            )  # fmt: skip
            if chosen == "Fail":
                raise DataError(finding.complaint)
            found.append(finding)
    return found


def validate_examples(spec: config.TrainSpec, counts: Mapping[Split, EncodeCounts], found: list[Finding]) -> None:
    """Raises DataError when nothing is left to learn from, or to evaluate on where that was asked for."""
    data, train, evaluation = spec.data, counts[TRAIN], counts[EVALUATION]
    if not train.examples:
        losses = _losses(train, data, _dropped(found, TRAIN))
        raise DataError(f"spec.data.train: nothing is left to learn from ({losses}): add data, or change overlong or checks")
    if spec.training.replay and not counts[REPLAY].examples:
        losses = _losses(counts[REPLAY], data, _dropped(found, REPLAY))
        raise DataError(f"spec.data.replay: nothing is left to rehearse ({losses}): add data, or change overlong or checks")
    if evaluation.examples:
        return
    if data.evaluation:
        raise DataError(f"spec.data.evaluation: nothing is left to evaluate on ({_losses(evaluation, data)}): add data")
    if data.evaluation_fraction:
        raise DataError(
            f"spec.data.evaluationFraction: {data.evaluation_fraction:g} of {train.rows} documents held out none that "
            "could be used: raise it, or give data.evaluation"
        )
    if data.folds:
        raise DataError(
            f"spec.data.folds: fold {data.folds.hold} of {data.folds.count} has none of the {train.rows} documents that "
            "could be used: lower count, or give data.evaluation"
        )


def _dropped(found: list[Finding], side: Split) -> list[Finding]:
    return [one for one in found if one.side == side and one.done == "dropped"]


def _losses(counts: EncodeCounts, data: config.DataConfig, dropped: list[Finding] | None = None) -> str:
    masked = counts.statuses[EncodeStatus.MASKED]
    known = (
        f"of {counts.rows} documents {counts.statuses[EncodeStatus.EMPTY]} are empty and "
        f"{counts.statuses[EncodeStatus.DROPPED]} longer than maxLength {data.max_length}"
        + (f"; {masked} have nothing to learn within that length" if masked else "")
    )
    return "; ".join([known, *(f"data.checks.{one.check} dropped {one.rows}" for one in dropped or [])])
