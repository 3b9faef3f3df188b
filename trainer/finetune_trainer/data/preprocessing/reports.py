"""Parts of the data report: the statistics of the prepared sequences, and how the sources were read."""

from __future__ import annotations

from itertools import islice

import numpy as np

from finetune_trainer.data.checks.inspection import InspectedRows
from finetune_trainer.data.checks.report import LengthBin, Lengths, SourceReport, SplitReport
from finetune_trainer.data.loading.dataset import ArrowDataset
from finetune_trainer.data.preprocessing.examples import EncodeCounts, Encoder, EncodeStatus
from finetune_trainer.data.sources.stream import SPLITS, Sources, Split

MAX_REPORTED_LABELS = 20
HISTOGRAM_BINS = 12


def split_report(counts: EncodeCounts, sequences: ArrowDataset, inspected: InspectedRows, split: Split) -> SplitReport:
    """The statistics of the sequences of a split."""
    statuses, labels = counts.statuses, counts.label_balance
    labeled = sum(labels.values())
    longest = sequences.longest
    return SplitReport(
        documents=counts.rows,
        empty_documents=statuses[EncodeStatus.EMPTY],
        split_documents=statuses[EncodeStatus.SPLIT],
        truncated_documents=statuses[EncodeStatus.TRUNCATED],
        dropped_documents=statuses[EncodeStatus.DROPPED],
        masked_documents=statuses[EncodeStatus.MASKED],
        unlabeled_documents=statuses[EncodeStatus.UNLABELED],
        unanswered_documents=statuses[EncodeStatus.UNANSWERED],
        identical_documents=statuses[EncodeStatus.IDENTICAL],
        examples=counts.examples,
        rows=len(sequences),
        tokens=counts.tokens,
        lengths=_lengths(counts),
        histogram=_histogram(counts),
        longest_row=longest,
        padding_share=1 - counts.tokens / (len(sequences) * longest) if longest else 0.0,
        labels={name: count / labeled for name, count in islice(labels.items(), MAX_REPORTED_LABELS)},
        imbalance=max(labels.values()) / min(labels.values()) if labels else None,
        compared=inspected.compared[split],
        digest=sequences.digest(),
    )


def _lengths(counts: EncodeCounts) -> Lengths:
    if not counts.lengths:
        return Lengths()
    quantiles = np.quantile(np.array(counts.lengths), (0, 0.5, 0.95, 1), method="inverted_cdf")
    shortest, median, p95, longest = map(int, quantiles)
    return Lengths(shortest=shortest, median=median, p95=p95, longest=longest)


def _histogram(counts: EncodeCounts) -> list[LengthBin]:
    if not counts.lengths:
        return []
    lengths = np.array(counts.lengths)
    shortest, longest = int(lengths.min()), int(lengths.max())
    width = -(-(longest - shortest + 1) // HISTOGRAM_BINS)
    bins = []
    for number, examples in enumerate(np.bincount((lengths - shortest) // width).tolist()):
        start = shortest + number * width
        bins.append(LengthBin(shortest=start, longest=min(start + width - 1, longest), examples=examples))
    return bins


def describe_sources(sources: Sources) -> list[SourceReport]:
    """How each source was read; raises DataError for one that cannot be."""
    reports = []
    for section in SPLITS:
        for number, source in enumerate(sources.get(section, ())):
            reports.append(SourceReport.from_description(f"data.{section}[{number}]", source.describe()))
    return reports


def is_padding_end_of_text(encoder: Encoder) -> bool | None:
    """Whether padding and the end of a text are the same token; None for a processor without an end-of-text token."""
    end_of_text = getattr(encoder.processor, "eos_token_id", None)
    return None if end_of_text is None else end_of_text == encoder.processor.pad_token_id
