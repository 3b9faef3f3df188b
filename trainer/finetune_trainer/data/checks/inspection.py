"""One look at all rows before they are encoded: what the checks find, and which rows their policies leave out.

It keeps 17 bytes of each row, and sketches of as many as the document allows to be compared.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from finetune_trainer.config import DataChecksConfig
from finetune_trainer.data.checks import duplicates, near_duplicates
from finetune_trainer.data.checks.balance import LOPSIDED, Balance
from finetune_trainer.data.checks.detectors import detector_for
from finetune_trainer.data.checks.duplicates import Places
from finetune_trainer.data.checks.near_duplicates import Sketches
from finetune_trainer.data.checks.report import Check, Finding
from finetune_trainer.data.progress import Pulse
from finetune_trainer.data.records.digests import row_digest, text_digest
from finetune_trainer.data.records.row import rewrite_texts, texts
from finetune_trainer.data.sources.stream import EVALUATION, SPLITS, TRAIN, TRAINING_SPLITS, RowStream, Split
from finetune_trainer.protocol.outcome import DataError


@dataclass
class Seen:
    """What is remembered of the rows, by their places in the stream."""

    most_compared: int
    sides: bytearray = field(default_factory=bytearray)
    """As numbers in SIDES."""
    rows: array[int] = field(default_factory=partial(array, "Q"))
    texts: array[int] = field(default_factory=partial(array, "Q"))
    personal: bytearray = field(default_factory=bytearray)
    kinds: dict[Split, Counter[str]] = field(default_factory=lambda: {side: Counter() for side in SPLITS})
    labels: dict[Split, Balance] = field(default_factory=lambda: {side: Balance() for side in SPLITS})
    sketches: dict[Split, Sketches] = field(init=False)

    def __post_init__(self) -> None:
        self.sketches = {side: Sketches(self.most_compared) for side in SPLITS}

    def on(self, side: Split) -> Places:
        """Which rows are on this side."""
        marks: Places = np.frombuffer(bytes(self.sides), np.uint8) == SPLITS.index(side)
        return marks


@dataclass(frozen=True)
class Inspected:
    """The stream without what the policies drop and scrub, and what was found."""

    stream: RowStream
    findings: list[Finding]
    labels: dict[Split, Balance]
    compared: dict[Split, int]
    rows: dict[Split, int]
    """How many are in the stream."""


def inspect(stream: RowStream, checks: DataChecksConfig, pulse: Pulse) -> Inspected:
    """Looks at all records; raises DataError for what a policy calls a failure."""
    seen = _look(stream, checks, pulse)
    flagged = _flagged(seen, checks, pulse.alive)
    findings = _findings(seen, flagged, checks, stream)
    dropped = np.zeros(len(seen.sides), np.bool_)
    for (check, _), places in flagged.items():
        if policy(checks, check) == "Drop":
            dropped |= places
    kept = stream.without(dropped) if dropped.any() else stream  # type: ignore[arg-type]  # an array of them is one too
    if checks.personal_data == "Scrub":
        scrub = detector_for(checks).scrub
        kept = kept.changed(lambda record: rewrite_texts(record, scrub, "spec.data.checks.personalData"))
    findings += [finding for side in SPLITS if (finding := _lopsided(seen, side))]
    compared = {side: len(sketches) for side, sketches in seen.sketches.items()}
    return Inspected(kept, findings, seen.labels, compared, {side: int((seen.on(side) & ~dropped).sum()) for side in SPLITS})


def policy(checks: DataChecksConfig, check: Check) -> str:
    """What the document says is to be done; of lopsided labels only the report speaks."""
    return {
        "duplicates": checks.duplicates, "nearDuplicates": checks.near_duplicates, "leakage": checks.leakage,
        "personalData": checks.personal_data, "truncation": checks.truncation, "unlearnable": checks.unlearnable,
        "balance": "Warn",
    }[check]  # fmt: skip


def _look(stream: RowStream, checks: DataChecksConfig, pulse: Pulse) -> Seen:
    wants_texts = {checks.near_duplicates, checks.leakage} != {"Ignore"}
    wants_rows = {checks.near_duplicates, checks.duplicates} != {"Ignore"}
    find = detector_for(checks).find
    seen = Seen(checks.compared_rows if wants_texts else 0)
    for place, (record, side, *_) in enumerate(stream):
        seen.sides.append(SPLITS.index(side))
        seen.rows.append(row_digest(record) if wants_rows else 0)
        seen.texts.append(text_digest(record) if wants_texts else 0)
        text = "\n".join(texts(record))
        seen.sketches[side].add(place, text)
        kinds = find(text) if checks.personal_data != "Ignore" else Counter[str]()
        seen.personal.append(bool(kinds))
        seen.kinds[side] += kinds
        seen.labels[side].see(record.values.get("label"))
        pulse()
    return seen


def _flagged(seen: Seen, checks: DataChecksConfig, alive: Callable[[], None]) -> dict[tuple[Check, Split], Places]:
    """Which rows each check found on each side; a row that repeats another word for word is not called similar to it too."""
    held_out, rows, of_texts = seen.on(EVALUATION), np.array(seen.rows, np.uint64), np.array(seen.texts, np.uint64)
    personal = np.frombuffer(bytes(seen.personal), np.bool_)
    index = near_duplicates.index_of(seen.sketches[EVALUATION], alive)
    flagged: dict[tuple[Check, Split], Places] = {}
    for side in SPLITS:  # what is rehearsed may well stand in the new data too
        own = seen.on(side)
        same = flagged["duplicates", side] = _within(own, lambda some: duplicates.repeated(rows[some]))
        flagged["personalData", side] = personal & own
        if side in TRAINING_SPLITS:
            alike = near_duplicates.similar(seen.sketches[side], index, alive)
            leaked, similar = (_places(found, len(own)) for found in alike)
            leaked |= _within(own, lambda some: duplicates.among(of_texts[some], of_texts[held_out]))
            repeated = _within(own, lambda some: duplicates.repeated(of_texts[some]))
            flagged |= {("leakage", side): leaked, ("nearDuplicates", side): similar & ~repeated & ~same}
    if checks.duplicates != "Warn":  # evaluation data stays as it was given
        flagged.pop(("duplicates", EVALUATION))
    return {key: places for key, places in flagged.items() if policy(checks, key[0]) != "Ignore"}


def _places(found: Sequence[int], count: int) -> Places:
    marks = np.zeros(count, np.bool_)
    marks[found] = True
    return marks


def _within(some: Places, check: Callable[[Places], Places]) -> Places:
    """What a check says of some of the rows, as places of all."""
    marks = np.zeros(len(some), np.bool_)
    marks[some] = check(some)
    return marks


def _findings(
    seen: Seen, flagged: dict[tuple[Check, Split], Places], checks: DataChecksConfig, stream: RowStream
) -> list[Finding]:  # fmt: skip
    found = {key: (int(places.sum()), int(places.argmax())) for key, places in flagged.items() if places.any()}
    origins = stream.origins(first for _, first in found.values())
    findings = []
    for (check, side), (rows, first) in found.items():
        detail = ""
        if check == "personalData":
            detail = ", ".join(f"{count} {kind}" for kind, count in seen.kinds[side].most_common())
        elif check == "nearDuplicates" and len(seen.sketches[side]) == seen.most_compared:
            detail = f"only the first {seen.most_compared:,} were compared"
        chosen = policy(checks, check)
        finding = Finding(
            check=check, side=side, rows=rows, of=int(seen.on(side).sum()), first=origins[first], detail=detail,
            done="dropped" if chosen == "Drop" else "scrubbed" if chosen == "Scrub" else "",
        )  # fmt: skip
        if chosen == "Fail":
            raise DataError(finding.complaint)
        findings.append(finding)
    return findings


def _lopsided(seen: Seen, side: Split) -> Finding | None:
    counts = seen.labels[side].counts
    if side != TRAIN or len(counts) < 2:
        return None
    (most, rows), *_, (least, fewest) = counts.items()
    if rows < LOPSIDED * fewest:
        return None
    detail = f"{rows / fewest:.0f} times as many have the label {most!r} as {least!r}"
    return Finding(check="balance", side=side, rows=rows, of=sum(counts.values()), detail=detail)
