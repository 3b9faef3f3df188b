"""What encoding the rows showed: those that lost their end, those without anything to learn, and whether any is left."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_trainer import config
from finetune_trainer.data.examples import Counts, Fate
from finetune_trainer.data.inspection import policy
from finetune_trainer.data.report import Check, Finding
from finetune_trainer.data.stream import EARLIER, EVALUATION, TRAIN, Side
from finetune_trainer.outcome import DataError

FATES: dict[Check, tuple[Fate, ...]] = {
    "truncation": (Fate.TRUNCATED, Fate.DROPPED), "unlearnable": (Fate.EMPTY, Fate.MASKED),
}  # fmt: skip


def findings(counts: Mapping[Side, Counts], spec: config.TrainSpec) -> list[Finding]:
    """What became of the rows, as findings; raises DataError for what a policy calls a failure."""
    found = []
    for side, known in counts.items():
        for check, fates in FATES.items():
            rows = sum(known.fates[fate] for fate in fates)
            chosen = policy(spec.data.checks, check)
            if not rows or chosen == "Ignore":
                continue
            finding = Finding(
                check=check, side=side, rows=rows, of=known.records,
                first=next(known.firsts[fate] for fate in fates if fate in known.firsts),
                done="cut or dropped" if check == "truncation" else "left out",
            )  # fmt: skip
            if chosen == "Fail":
                raise DataError(finding.complaint)
            found.append(finding)
    return found


def insist_on_examples(spec: config.TrainSpec, counts: Mapping[Side, Counts], found: list[Finding]) -> None:
    """Raises DataError when nothing is left to learn from, or to evaluate on where that was asked for."""
    data, train, evaluation = spec.data, counts[TRAIN], counts[EVALUATION]
    if not train.examples:
        losses = _losses(train, data, _dropped(found, TRAIN))
        raise DataError(f"spec.data.train: nothing is left to learn from ({losses}): add data, or change overlong or checks")
    if spec.training.rehearsal and not counts[EARLIER].examples:
        losses = _losses(counts[EARLIER], data, _dropped(found, EARLIER))
        raise DataError(f"spec.data.earlier: nothing is left to rehearse ({losses}): add data, or change overlong or checks")
    if evaluation.examples:
        return
    if data.evaluation:
        raise DataError(f"spec.data.evaluation: nothing is left to evaluate on ({_losses(evaluation, data)}): add data")
    if data.evaluation_fraction:
        raise DataError(
            f"spec.data.evaluationFraction: {data.evaluation_fraction:g} of {train.records} documents held out none that "
            "could be used: raise it, or give data.evaluation"
        )
    if data.folds:
        raise DataError(
            f"spec.data.folds: fold {data.folds.hold} of {data.folds.count} has none of the {train.records} documents that "
            "could be used: lower count, or give data.evaluation"
        )


def _dropped(found: list[Finding], side: Side) -> list[Finding]:
    return [one for one in found if one.side == side and one.done == "dropped"]


def _losses(counts: Counts, data: config.Data, dropped: list[Finding] | None = None) -> str:
    masked = counts.fates[Fate.MASKED]
    known = (
        f"of {counts.records} documents {counts.fates[Fate.EMPTY]} are empty and {counts.fates[Fate.DROPPED]} longer than "
        f"maxLength {data.max_length}" + (f"; {masked} have nothing to learn within that length" if masked else "")
    )
    return "; ".join([known, *(f"data.checks.{one.check} dropped {one.rows}" for one in dropped or [])])
