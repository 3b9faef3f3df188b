"""What there is to say of the data before it is learnt from: numbers of each side, and findings in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from pydantic import Field

from finetune_trainer.config.base import Section
from finetune_trainer.protocol.outcome import DataSummary

Check = Literal["leakage", "personalData", "unlearnable", "truncation", "duplicates", "nearDuplicates", "balance"]
MOST_FINDINGS = 5  # in a job's status
MOST_CHARACTERS = 200  # of one of them


class Words(NamedTuple):
    """How a finding is put, after "N of M training rows": one row's verb would be wrong, so that both are given."""

    what: str
    advice: str


WORDS: dict[Check, Words] = {
    "leakage": Words("with texts of the evaluation data", "remove them, or set data.checks.leakage: Drop"),
    "personalData": Words("with personal data", "remove it, or set data.checks.personalData to Scrub or Drop"),
    "unlearnable": Words("without anything to learn", "fill or remove them, or set data.checks.unlearnable: Warn"),
    "truncation": Words("longer than maxLength", "raise data.maxLength, or set data.checks.truncation: Warn"),
    "duplicates": Words("that repeat an earlier one", "remove them, or set data.checks.duplicates: Drop"),
    "nearDuplicates": Words("that nearly repeat an earlier one", "remove them, or set data.checks.nearDuplicates: Drop"),
    "balance": Words("with the most frequent label", "set data.resample: Balanced, or weigh the classes"),
}
"""By the check's name in `data.checks`, the worst first."""


class Finding(Section):
    """One thing that is wrong with the rows of one side."""

    check: Check
    side: Literal["train", "replay", "evaluation"]
    rows: int
    of: int = Field(description="Rows that were looked at.")
    first: str = Field("", description="File and row of the first one.")
    detail: str = ""
    done: Literal["", "dropped", "scrubbed", "cut or dropped", "left out"] = ""

    @property
    def sentence(self) -> str:
        """The finding in words."""
        notes = [note for note in (self.detail, self.first and f"the first is {self.first}", self.done) if note]
        share = 100 * self.rows / max(self.of, 1)
        known = f"{self.rows:,} of {self.of:,} {self._side} rows ({share:.1f} %) {WORDS[self.check].what}"
        return f"{known}: {'; '.join(notes)}" if notes else known

    @property
    def complaint(self) -> str:
        """The finding as the reason not to train."""
        words, detail = WORDS[self.check], f" ({self.detail})" if self.detail else ""
        return f"{self.first}: one of {self.rows:,} {self._side} rows, of {self.of:,}, {words.what}{detail}: {words.advice}"

    @property
    def _side(self) -> str:
        return {"train": "training", "replay": "rehearsed"}.get(self.side, self.side)


class Lengths(Section):
    """Tokens of the examples of one side, before several share a row."""

    shortest: int = 0
    median: int = 0
    p95: int = 0
    longest: int = 0


class SplitReport(Section):
    """What became of the rows of data of one side; counts, and shares between 0 and 1."""

    documents: int
    empty_documents: int
    split_documents: int
    truncated_documents: int
    dropped_documents: int = Field(description="Longer than a sequence, with overlong: Drop.")
    masked_documents: int = Field(description="Cut off before anything that is to be learnt, such as the assistant's words.")
    examples: int
    rows: int = Field(description="Sequences to learn from; with packing each holds several examples.")
    tokens: int
    lengths: Lengths
    longest_row: int
    padding_share: float = Field(
        description="What would be padding if all rows were filled to the longest; packing is there to bring it near zero."
    )
    labels: dict[str, float] = Field(description="Each label's share, at most 20 of them, the most frequent first.")
    imbalance: float | None = Field(None, description="Rows of the most frequent label for each one of the rarest.")
    compared: int = Field(0, description="Rows that were compared for what is nearly the same, the first ones.")
    digest: str = Field(description="SHA-256 of the rows: the same on every node, or they would not learn from the same data.")


class FewShotReport(Section):
    """The evaluation rows that the starting model is asked once more, with solved training rows before them."""

    rows: int
    examples: float = Field(description="Solved rows before a row, on average.")
    shortened: int = Field(description="Rows that had no room, or found no other subject, for as many as the document says.")


class DataReport(Section):
    """All that is known of the prepared data."""

    train: SplitReport
    replay: SplitReport | None = Field(None, description="Rows that are rehearsed.")
    evaluation: SplitReport | None = None
    few_shot: FewShotReport | None = None
    padding_is_end_of_text: bool | None = Field(None, description="Whether one token stands for both; no loss here minds.")
    findings: list[Finding] = Field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The report for people."""
        for side, report in (("train", self.train), ("rehearsed", self.replay), ("evaluation", self.evaluation)):
            if report is not None:
                yield f"data, {side}: {_numbers(report)}"
                if report.labels:
                    yield f"data, {side}: labels {', '.join(f'{name} {share:.1%}' for name, share in report.labels.items())}"
        if self.few_shot is not None:
            shown = self.few_shot
            fewer = f", {shown.shortened:,} of them with fewer than the document says" if shown.shortened else ""
            yield f"data, few-shot: {shown.rows:,} evaluation rows behind {shown.examples:.2f} solved ones each{fewer}"
        for finding in self.findings:
            yield f"data: {finding.sentence}"

    @property
    def digests(self) -> list[str | None]:
        """Of the rows of each side."""
        return [one.digest if one else None for one in (self.train, self.replay, self.evaluation)]

    @property
    def summary(self) -> DataSummary:
        """What fits into a job's status."""
        sentences = [finding.sentence for finding in self.findings[:MOST_FINDINGS]]
        return DataSummary(
            rows=self.train.rows,
            tokens=self.train.tokens,
            truncated_share=round(_cut_share(self.train), 4),
            findings=[one if len(one) <= MOST_CHARACTERS else one[: MOST_CHARACTERS - 1] + "…" for one in sentences],
        )


def in_order(findings: list[Finding]) -> list[Finding]:
    """The worst first; what was seen to comes last."""
    order = list(WORDS)
    return sorted(findings, key=lambda one: (one.done in ("dropped", "scrubbed"), order.index(one.check), one.side != "train"))


def _cut_share(report: SplitReport) -> float:
    return (report.truncated_documents + report.dropped_documents) / max(report.documents, 1)


def _numbers(report: SplitReport) -> str:
    lengths, documents = report.lengths, max(report.documents, 1)
    shares = {
        "split": report.split_documents, "truncated": report.truncated_documents, "dropped": report.dropped_documents,
        "empty": report.empty_documents, "without anything to learn": report.masked_documents,
    }  # fmt: skip
    made = f"sequences of {report.tokens:,} tokens" if report.tokens else "examples"
    known = [f"{report.documents:,} rows of data became {report.rows:,} {made}"]
    if lengths.longest:
        known.append(f"lengths {lengths.shortest}, median {lengths.median}, 95 % {lengths.p95}, longest {lengths.longest}")
    known += [f"{count / documents:.1%} {name}" for name, count in shares.items() if count]
    return ", ".join(known)
