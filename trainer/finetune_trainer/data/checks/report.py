"""The data report: statistics of each split, and the findings of the checks in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field

from finetune_trainer.config.base import Section
from finetune_trainer.data.checks.base import Check, CheckName
from finetune_trainer.data.checks.registry import CHECKS, CHECKS_BY_NAME
from finetune_trainer.data.sources.base import SourceDescription
from finetune_trainer.data.sources.stream import EVALUATION, REPLAY, TRAIN, Split
from finetune_trainer.protocol.outcome import DataSummary

MAX_FINDINGS = 5  # in a job's status
MAX_FINDING_CHARACTERS = 200
ADJECTIVES = {"train": "training", "replay": "replay", "evaluation": "evaluation"}

Action = Literal["", "dropped", "scrubbed", "cut or dropped", "left out"]


class Finding(Section):
    """A problem that a check found in the rows of one split."""

    check: CheckName
    split: Split = Field(alias="side")
    rows: int
    of: int = Field(description="Rows that were checked.")
    first: str = Field("", description="File and row of the first one.")
    detail: str = ""
    done: Action = ""

    @property
    def sentence(self) -> str:
        """The finding in words."""
        share = 100 * self.rows / max(self.of, 1)
        sentence = f"{self.rows:,} of {self.of:,} {self._adjective} rows ({share:.1f} %) {self._check.description}"
        notes = [self.detail, self.first and f"the first is {self.first}", self.done]
        note = "; ".join(filter(None, notes))
        return f"{sentence}: {note}" if note else sentence

    @property
    def error(self) -> str:
        """The finding as an error message that ends the run."""
        detail = f" ({self.detail})" if self.detail else ""
        return (
            f"{self.first}: one of {self.rows:,} {self._adjective} rows, of {self.of:,}, {self._check.description}{detail}: "
            f"{self._check.advice}"
        )

    @property
    def severity_order(self) -> tuple[bool, int, bool]:
        """A sort key: unresolved findings first, then the worst checks, then training rows."""
        is_resolved = self.done in ("dropped", "scrubbed")
        return is_resolved, CHECKS.index(self._check), self.split != TRAIN

    @property
    def _check(self) -> Check:
        return CHECKS_BY_NAME[self.check]

    @property
    def _adjective(self) -> str:
        return ADJECTIVES[self.split]


class Lengths(Section):
    """Tokens of the examples of one split, before packing."""

    shortest: int = 0
    median: int = 0
    p95: int = 0
    longest: int = 0


class LengthBin(Section):
    """The number of examples with `shortest` to `longest` tokens."""

    shortest: int
    longest: int
    examples: int


class SplitReport(Section):
    """Counts of the rows of one split; shares are between 0 and 1."""

    documents: int
    empty_documents: int
    split_documents: int
    truncated_documents: int
    dropped_documents: int = Field(description="Longer than a sequence, with overlong: Drop.")
    masked_documents: int = Field(description="Truncated before any token to learn, such as the assistant's answer.")
    unlabeled_documents: int = Field(0, description="Without a label.")
    unanswered_documents: int = Field(0, description="Conversations without an answer, or with an empty one.")
    identical_documents: int = Field(0, description="Pairs of equal answers.")
    examples: int
    rows: int = Field(description="Sequences to train on; with packing each holds several examples.")
    tokens: int
    lengths: Lengths
    histogram: list[LengthBin] = Field(
        default_factory=list, description="Lengths of the examples, in bins of equal width; empty for images."
    )
    longest_row: int
    padding_share: float = Field(
        description="Share of padding if all sequences were padded to the longest; packing brings it near zero."
    )
    labels: dict[str, float] = Field(description="Share of each label, the 20 most frequent at most, in descending order.")
    imbalance: float | None = Field(None, description="Rows of the most frequent label for each row of the rarest.")
    compared: int = Field(0, description="Rows, from the first on, that were compared for similarity.")
    digest: str = Field(description="SHA-256 of the sequences; it is equal on all nodes, which train on the same data.")

    @property
    def losses(self) -> dict[str, int]:
        """Rows that did not become one whole example, in words."""
        counts = {
            "split": self.split_documents, "truncated": self.truncated_documents, "dropped": self.dropped_documents,
            "empty": self.empty_documents, "without anything to learn": self.masked_documents,
            "unlabeled": self.unlabeled_documents, "unanswered": self.unanswered_documents,
            "with equal answers": self.identical_documents,
        }  # fmt: skip
        return {name: count for name, count in counts.items() if count}


class FewShotReport(Section):
    """The evaluation rows of the few-shot evaluation of the starting model, each after solved training rows."""

    rows: int
    examples: float = Field(description="Solved rows before an evaluation row, on average.")
    shortened: int = Field(
        description="Evaluation rows with fewer solved rows than requested: more did not fit, or had the same subject."
    )


class SourceReport(Section):
    """How a source was read."""

    field: str = Field(description="The source's place in the document, such as data.train[0].")
    address: str
    format: str = Field(description="The formats of its files, separated by commas.")
    files: int
    columns: dict[str, str] = Field(default_factory=dict, description="The column of each role.")
    compression: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    conversation: str | None = Field(None, description="The shape of its conversations, if it has any.")
    notes: list[str] = Field(default_factory=list, description="Choices that the content of its files led to.")

    @classmethod
    def from_description(cls, field: str, description: SourceDescription) -> Self:
        """The report of a source at this place of the document."""
        return cls.model_validate(dataclasses.asdict(description) | {"field": field, "notes": list(description.notes)})

    @property
    def sentence(self) -> str:
        """How it was read, in words."""
        columns = ", ".join(f"{role} from {column!r}" if role != column else role for role, column in self.columns.items())
        details = {
            "compression": self.compression, "encoding": self.encoding, "delimiter": self.delimiter,
            "conversations": self.conversation, "columns": columns,
        }  # fmt: skip
        files = f"{self.files:,} {'file' if self.files == 1 else 'files'}"
        parts = [f"{name} {value}" for name, value in details.items() if value]
        return f"{self.field} {self.address}: {', '.join([self.format, files, *parts])}"


class DataReport(Section):
    """Statistics and findings of the prepared data."""

    sources: list[SourceReport] = Field(default_factory=list)
    train: SplitReport
    replay: SplitReport | None = Field(None, description="Rows of data.replay.")
    evaluation: SplitReport | None = None
    few_shot: FewShotReport | None = None
    padding_is_end_of_text: bool | None = Field(
        None, description="Whether the padding token is also the end-of-text token; no loss here is affected by it."
    )
    findings: list[Finding] = Field(default_factory=list)

    @property
    def splits(self) -> dict[Split, SplitReport]:
        """The report of each split that has rows."""
        reports: dict[Split, SplitReport | None] = {TRAIN: self.train, REPLAY: self.replay, EVALUATION: self.evaluation}
        return {split: report for split, report in reports.items() if report is not None}

    def lines(self) -> Iterator[str]:
        """The report as log lines."""
        for source in self.sources:
            yield f"data: {source.sentence}"
            for note in source.notes:
                yield f"data: {source.field}: {note}"
        for split, report in self.splits.items():
            yield f"data, {split}: {_describe(report)}"
            if report.labels:
                yield f"data, {split}: labels {', '.join(f'{name} {share:.1%}' for name, share in report.labels.items())}"
        if self.few_shot is not None:
            few_shot = self.few_shot
            fewer = f", {few_shot.shortened:,} of them with fewer than the document asks for" if few_shot.shortened else ""
            yield f"data, few-shot: {few_shot.rows:,} evaluation rows after {few_shot.examples:.2f} solved ones each{fewer}"
        for finding in self.findings:
            yield f"data: {finding.sentence}"

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each split's rows."""
        return {split: report.digest for split, report in self.splits.items()}

    @property
    def summary(self) -> DataSummary:
        """The part that fits into a job's status."""
        findings = []
        for finding in self.findings[:MAX_FINDINGS]:
            sentence = finding.sentence
            if len(sentence) > MAX_FINDING_CHARACTERS:
                sentence = sentence[: MAX_FINDING_CHARACTERS - 1] + "…"
            findings.append(sentence)
        train = self.train
        truncated_share = (train.truncated_documents + train.dropped_documents) / max(train.documents, 1)
        return DataSummary(rows=train.rows, tokens=train.tokens, truncated_share=round(truncated_share, 4), findings=findings)


def _describe(report: SplitReport) -> str:
    unit = f"sequences of {report.tokens:,} tokens" if report.tokens else "examples"
    parts = [f"{report.documents:,} rows of data became {report.rows:,} {unit}"]
    lengths = report.lengths
    if lengths.longest:
        parts.append(f"lengths {lengths.shortest}, median {lengths.median}, 95 % {lengths.p95}, longest {lengths.longest}")
    for name, count in report.losses.items():
        parts.append(f"{count / max(report.documents, 1):.1%} {name}")
    return ", ".join(parts)
