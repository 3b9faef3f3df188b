"""Records become rows once: encoded by the objective, held out, packed and stored.

Every node prepares for itself and comes to the same rows in the same order; on one node all ranks and agents may ask at once,
one works under a lock and the others map its files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from finetune_trainer import config
from finetune_trainer.data.augmentation.text import augmenter, copies_of
from finetune_trainer.data.checks import balance
from finetune_trainer.data.checks.detectors import detector_for
from finetune_trainer.data.checks.inspection import Inspected, inspect
from finetune_trainer.data.checks.report import DataReport, FewShotReport, Lengths, SplitReport, in_order
from finetune_trainer.data.loading.dataset import ArrowDataset
from finetune_trainer.data.loading.sampler import Mixture
from finetune_trainer.data.preprocessing import encode_findings, few_shot, mixing
from finetune_trainer.data.preprocessing.examples import EncodeCounts, Encoder, EncodeStatus, ExampleWriter, write_examples
from finetune_trainer.data.preprocessing.packing import pack
from finetune_trainer.data.progress import Pulse, Tell
from finetune_trainer.data.sources.resolver import Materials, SourceResolver
from finetune_trainer.data.sources.stream import EVALUATION, REPLAY, SPLITS, TRAIN, TRAINING_SPLITS, RowStream, Sources, Split
from finetune_trainer.storage.locking import exclusive, write_folder_atomically

# Part of the cache's key: a change of how rows are made must not find the rows of before.
LAYOUT = 4
FACTS, REPORT = "facts.json", "report.json"
FEW_SHOT = "few-shot.arrow"


@dataclass(frozen=True)
class Prepared:
    """Rows to learn from, those that are rehearsed behind the new ones, and rows to evaluate on."""

    train: ArrowDataset
    evaluation: ArrowDataset | None
    few_shot: ArrowDataset | None
    """The rows to evaluate on, each with solved ones before it; None if the document does not ask for them."""
    report: DataReport
    mixture: Mixture | None
    """Which rows to learn from have which share; None where all have the same."""
    epoch: int
    """How many rows an epoch shows."""


def prepare(
    spec: config.TrainSpec, encoder: Encoder, reading: SourceResolver, alive: Callable[[], None] = lambda: None,
    tell: Tell = lambda text, share: None,
) -> Prepared:  # fmt: skip
    """The rows of the document's data, from the cache if they were prepared before; what a survey finds is told to `encoder`.

    `alive` is called now and then, also while another process works, and `tell` how far the work is. Raises DataError for a
    file or row that cannot be used, for what the document's checks refuse, and when nothing is left to learn from.
    """
    sources, materials = reading.sources(spec.data), reading.materials(spec.data)
    if spec.training.replay:
        sources[REPLAY] = reading.replay(spec.data)
    folder = reading.cache / "prepared" / _key(spec, encoder, sources, materials)
    with exclusive(folder, alive):
        if not folder.exists():
            with write_folder_atomically(folder) as temporary:
                _build(spec, encoder, sources, materials, temporary, Pulse(alive, tell))
    encoder.set_statistics(json.loads((folder / FACTS).read_text()))
    return _load(folder, spec)


def _key(spec: config.TrainSpec, encoder: Encoder, sources: Sources, materials: Materials) -> str:
    data = spec.data
    identity = {
        "layout": LAYOUT,
        "encoder": encoder.fingerprint,
        "sources": {side: [source.identity for source in found] for side, found in sources.items()},
        "held out": [data.evaluation_fraction, data.folds and data.folds.document()],
        "packing": [spec.packing, data.max_length],
        "groups": mixing.kind(data),
        "augmentation": data.augmentation and [data.augmentation.document(), spec.training.seed, materials.identity],
        "checks": [data.checks.document(), detector_for(data.checks).identity],
        "few shot": spec.evaluation.few_shot and [spec.evaluation.few_shot.document(), spec.training.seed],
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def _build(
    spec: config.TrainSpec, encoder: Encoder, sources: Sources, materials: Materials, folder: Path, pulse: Pulse
) -> None:  # fmt: skip
    augmentation = spec.data.augmentation
    augmented = augmenter(augmentation, materials, spec.training.seed, pulse) if augmentation else iter
    pulse.begin("rows looked at")
    inspected = inspect(RowStream(spec.data, sources), spec.data.checks, pulse)
    facts = encoder.collect_statistics(inspected.stream.training)
    encoder.set_statistics(facts)
    (folder / FACTS).write_text(json.dumps(facts))
    pulse.begin("rows encoded", sum(count * (1 + copies_of(augmentation, side)) for side, count in inspected.rows.items()))
    writers = {side: ExampleWriter(folder / f"{side}.examples", encoder.fields) for side in SPLITS}
    write_examples(augmented(inspected.stream), encoder, writers, mixing.grouping(spec.data), pulse)
    for writer in writers.values():
        writer.close()
    counts = {side: writer.counts for side, writer in writers.items()}
    findings = inspected.findings + encode_findings.findings(counts, spec)
    encode_findings.validate_examples(spec, counts, findings)
    reports = {}
    for side, writer in writers.items():
        if writer.counts.examples:
            packed = _finish(writer, folder / f"{side}.arrow", spec)
            if side == TRAIN:
                mixing.keep(folder, writer.counts, packed, spec.data)
            reports[side] = _report(writer.counts, ArrowDataset(folder / f"{side}.arrow"), inspected, side)
        writer.path.unlink(missing_ok=True)
        pulse.alive()
    report = DataReport(
        train=reports[TRAIN], replay=reports.get(REPLAY), evaluation=reports.get(EVALUATION),
        padding_is_end_of_text=_padding_is_end(encoder),
        few_shot=_few_shot(spec, encoder, inspected.stream, folder, pulse), findings=in_order(findings),
    )  # fmt: skip
    (folder / REPORT).write_text(report.model_dump_json())


def _few_shot(
    spec: config.TrainSpec, encoder: Encoder, stream: RowStream, folder: Path, pulse: Pulse
) -> FewShotReport | None:  # fmt: skip
    if spec.evaluation.few_shot is None:
        return None
    wanted = spec.evaluation.few_shot.examples
    pulse.begin("drawn from, or set behind examples")
    drawn = few_shot.draw(pulse.over(stream.training()), encoder, wanted, spec.training.seed)
    examples = few_shot.Examples(encoder, drawn, wanted, spec.training.seed)
    writer = ExampleWriter(folder / "few-shot.examples", encoder.fields)
    held_out = (placed for placed in pulse.over(stream) if placed.split == EVALUATION)
    write_examples(examples(held_out), encoder, {EVALUATION: writer}, lambda _: 0, lambda _: None)
    writer.close()
    _finish(writer, folder / FEW_SHOT, spec)
    writer.path.unlink(missing_ok=True)
    return examples.report()


def _finish(writer: ExampleWriter, rows: Path, spec: config.TrainSpec) -> list[int] | None:
    """Examples become rows; if they are packed, how many rows each run of examples of one group."""
    if spec.packing:
        return pack(writer.path, rows, spec.data.max_length, mixing.sizes(writer.counts))
    writer.path.rename(rows)
    return None


def _report(counts: EncodeCounts, rows: ArrowDataset, inspected: Inspected, side: Split) -> SplitReport:
    statuses, labels = counts.statuses, inspected.labels[side].counts
    known = sum(labels.values())
    return SplitReport(
        documents=counts.rows,
        empty_documents=statuses[EncodeStatus.EMPTY],
        split_documents=statuses[EncodeStatus.SPLIT],
        truncated_documents=statuses[EncodeStatus.TRUNCATED],
        dropped_documents=statuses[EncodeStatus.DROPPED],
        masked_documents=statuses[EncodeStatus.MASKED],
        examples=counts.examples,
        rows=len(rows),
        tokens=counts.tokens,
        lengths=_lengths(counts),
        longest_row=rows.longest,
        padding_share=1 - counts.tokens / (len(rows) * rows.longest) if rows.longest else 0.0,
        labels={name: count / known for name, count in islice(labels.items(), balance.SHOWN)},
        imbalance=max(labels.values()) / min(labels.values()) if labels else None,
        compared=inspected.compared[side],
        digest=rows.digest(),
    )


def _lengths(counts: EncodeCounts) -> Lengths:
    if not counts.lengths:
        return Lengths()
    found = np.quantile(np.array(counts.lengths), (0, 0.5, 0.95, 1), method="inverted_cdf")
    return Lengths(**dict(zip(Lengths.model_fields, map(int, found), strict=True)))


def _padding_is_end(encoder: Encoder) -> bool | None:
    end = getattr(encoder.processor, "eos_token_id", None)
    return None if end is None else end == encoder.processor.pad_token_id


def _load(folder: Path, spec: config.TrainSpec) -> Prepared:
    files = {side: file for side in SPLITS if (file := folder / f"{side}.arrow").exists()}
    report = DataReport.model_validate_json((folder / REPORT).read_text())
    shown = ArrowDataset(folder / FEW_SHOT) if (folder / FEW_SHOT).exists() else None
    train = ArrowDataset(*(files[side] for side in TRAINING_SPLITS if side in files))
    evaluation = ArrowDataset(files[EVALUATION]) if EVALUATION in files else None
    new = report.train.rows
    mixture = mixing.with_replay(mixing.mixture(folder, spec.data), new, len(train) - new, spec.training.replay)
    # Of a few long packed rows there may be fewer than groups, each of which has a position.
    return Prepared(train, evaluation, shown, report, mixture, max(new, len(mixture.shares) if mixture else 0))
