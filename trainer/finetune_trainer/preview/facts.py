"""The preview as titled lists of short sentences, which the terminal and the page show alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from finetune_trainer.config import DataChecksConfig
from finetune_trainer.data.checks.registry import CHECKS
from finetune_trainer.data.checks.report import SplitReport
from finetune_trainer.data.sources.stream import EVALUATION, REPLAY, TRAIN, Split
from finetune_trainer.preview.report import CollatedTokens, DataPreview, SpecialToken

SPLIT_TITLES: dict[Split, str] = {TRAIN: "Training data", REPLAY: "Replay data", EVALUATION: "Evaluation data"}

DOCUMENT_CHECKS = {field.alias for field in DataChecksConfig.model_fields.values()}
"""Checks that the document has a policy for; the others are about labels, which most data has none of."""


class Fact(NamedTuple):
    """A sentence with the name of its subject."""

    subject: str
    sentence: str


class Bar(NamedTuple):
    """A bar of a chart."""

    name: str
    value: float
    """Relative to the other bars of its chart."""
    text: str
    """The value, as it is shown."""


def source_facts(preview: DataPreview) -> Iterator[Fact]:
    """How each source was read."""
    sampled = {source.field: source for source in preview.sampled}
    for source in preview.sources:
        yield Fact(source.field, source.sentence.removeprefix(f"{source.field} "))
        for note in source.notes:
            yield Fact("", note)
        if source.field in sampled:
            sample = sampled[source.field]
            total = f" of about {sample.total:,}" if sample.total is not None else ""
            yield Fact("", f"only the first {sample.rows:,} rows{total} were read")


def split_facts(report: SplitReport, preview: DataPreview) -> Iterator[Fact]:
    """The rows of a split, and the sequences that they became."""
    unit = f"sequences of {report.tokens:,} tokens" if report.tokens else "examples"
    yield Fact("rows", f"{report.documents:,} rows became {report.rows:,} {unit}")
    if report is preview.evaluation and preview.few_shot is not None:
        shortened = f", {preview.few_shot.shortened:,} after fewer" if preview.few_shot.shortened else ""
        yield Fact("few-shot", f"each after {preview.few_shot.examples:.2f} solved rows on average{shortened}")
    for name, count in report.losses.items():
        yield Fact("", f"{count:,} ({count / max(report.documents, 1):.1%}) {name}")
    if not report.tokens:
        return
    lengths = report.lengths
    yield Fact(
        "lengths",
        f"shortest {lengths.shortest:,}, median {lengths.median:,}, 95 % up to {lengths.p95:,}, longest {lengths.longest:,} "
        f"(data.maxLength {preview.max_length:,})",
    )
    if preview.packing:
        filled = report.tokens / (report.rows * preview.max_length)
        documents = f"{report.examples / report.rows:.1f} documents in a sequence"
        yield Fact("packing", f"{documents}, which fill {filled:.1%} of its {preview.max_length:,} tokens")
    else:
        yield Fact("padding", f"{report.padding_share:.1%} if all sequences were as long as the longest; less in a batch")


def length_bars(report: SplitReport) -> list[Bar]:
    """The histogram of lengths."""
    bars = []
    for item in report.histogram:
        name = f"{item.shortest:,}" if item.shortest == item.longest else f"{item.shortest:,} to {item.longest:,}"
        bars.append(Bar(name, item.examples, f"{item.examples:,}"))
    return bars


def label_bars(report: SplitReport) -> list[Bar]:
    """The share of each label."""
    return [Bar(name, share, f"{share:.1%}") for name, share in report.labels.items()]


def check_facts(preview: DataPreview) -> Iterator[Fact]:
    """What each data check found."""
    for check in CHECKS:
        findings = [finding for finding in preview.findings if finding.check == check.name]
        for number, finding in enumerate(findings):
            yield Fact(check.name if number == 0 else "", finding.sentence)
        if not findings and check.name in DOCUMENT_CHECKS:
            yield Fact(check.name, _nothing_found(preview, check.name, preview.policies[check.name]))


def _nothing_found(preview: DataPreview, name: str, policy: str) -> str:
    if policy == "Ignore":
        return f"not checked, as data.checks.{name} is Ignore"
    if name == "leakage" and preview.evaluation is None:
        return "not checked, as there is no evaluation data"
    return "nothing found"


def token_facts(collated: CollatedTokens) -> Iterator[Fact]:
    """How many tokens are trained on, if tokens are predicted at all, and how often each special token is seen."""
    predicts_tokens = collated.trained > 0
    if predicts_tokens:
        share = collated.trained / collated.tokens
        yield Fact("trained on", f"{collated.trained:,} of {collated.tokens:,} tokens ({share:.1%})")
    for number, token in enumerate(collated.special_tokens):
        yield Fact("special tokens" if number == 0 else "", _describe_token(token, predicts_tokens))


def _describe_token(token: SpecialToken, predicts_tokens: bool) -> str:
    names = f" ({', '.join(token.names)})" if token.names else ""
    if not token.count and not token.trained:
        return f"{token.token}{names}: not used"
    trained = f", {token.trained:,} trained on" if predicts_tokens else ""
    return f"{token.token}{names}: {token.count:,} seen{trained}"


def run_facts(preview: DataPreview) -> Iterator[Fact]:
    """The steps and tokens of the run, and how often it sees each source."""
    run = preview.run
    about = "at least " if run.is_lower_bound else "about " if run.is_estimate else ""
    epochs = f"{run.epochs:,.2f} epochs of {run.steps_per_epoch:,.1f} steps"
    yield Fact("steps", f"{run.steps:,}: {about}{epochs}" if run.is_fixed else f"{about}{run.steps:,}: {epochs}")
    tokens = f", {run.tokens_per_step:,.0f} tokens on average" if run.tokens_per_step else ""
    yield Fact("a step", f"{run.sequences_per_step:,} sequences{tokens}")
    if run.tokens:
        yield Fact("tokens", f"{about}{run.tokens:,} in the whole run")
    total = sum(share.seen_per_epoch for share in preview.shares)
    for share in preview.shares:
        times = share.seen_per_epoch / max(share.sequences, 1)
        sentence = f"{share.seen_per_epoch / total:.1%} of an epoch; {share.sequences:,} sequences, each {times:.2f} times"
        yield Fact(share.field, sentence)
