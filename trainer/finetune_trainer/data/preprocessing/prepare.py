"""Prepares the data of a run: rows are checked, augmented, encoded by the objective, packed and stored.

Every node prepares the data itself and gets the same sequences in the same order. On a node all ranks and agents may start at
once: one of them works under a lock, and the others map its files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from finetune_trainer import config
from finetune_trainer.data.augmentation.resources import AugmentationResources, resolve_resources
from finetune_trainer.data.augmentation.text import copies_of, load_augmenter
from finetune_trainer.data.checks.detectors import detector_for
from finetune_trainer.data.checks.inspection import InspectedRows, inspect
from finetune_trainer.data.checks.report import DataReport, FewShotReport, SplitReport
from finetune_trainer.data.loading.dataset import ArrowDataset
from finetune_trainer.data.loading.origins import Origins, OriginWriter
from finetune_trainer.data.loading.sampler import Mixture
from finetune_trainer.data.preprocessing import mixing
from finetune_trainer.data.preprocessing.encode_findings import encode_findings, validate_examples
from finetune_trainer.data.preprocessing.examples import (
    Encoder,
    ExampleWriter,
    FirstRow,
    write_examples,
)
from finetune_trainer.data.preprocessing.few_shot import FewShotPrompter, draw_pool
from finetune_trainer.data.preprocessing.packing import pack
from finetune_trainer.data.preprocessing.reports import describe_sources, is_padding_end_of_text, split_report
from finetune_trainer.data.progress import ProgressTracker, ReportProgress
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.data.sources.stream import (
    EVALUATION,
    REPLAY,
    SPLITS,
    TRAIN,
    TRAINING_SPLITS,
    RowStream,
    Sources,
    Split,
    SplitRow,
)
from finetune_trainer.protocol import heartbeat
from finetune_trainer.protocol.outcome import DataError, InsufficientDataError
from finetune_trainer.storage.locking import exclusive, write_folder_atomically

# Part of the cache key; increase it with every change of the stored files.
LAYOUT = 9
FACTS, REPORT = "facts.json", "report.json"
FEW_SHOT = "few-shot.arrow"
FIRST_ROWS = "first-rows.json"


@dataclass(frozen=True)
class Prepared:
    """The sequences to train on, new ones before replayed ones, and those to evaluate on."""

    train: ArrowDataset
    evaluation: ArrowDataset | None
    few_shot: ArrowDataset | None
    """The evaluation sequences with solved rows before them; None if the document does not ask for them."""
    report: DataReport
    mixture: Mixture | None
    """The groups of training sequences and their shares; None if all sequences have the same share."""
    epoch: int
    """The number of sequences in an epoch."""
    first_rows: Sequence[FirstRow]
    """The first rows of each training source that gave an example."""
    origins: Origins
    """Where the training sequences come from."""


def prepare(
    spec: config.TrainSpec, encoder: Encoder, resolver: SourceResolver,
    report_progress: ReportProgress = lambda text, share: None,
) -> Prepared:  # fmt: skip
    """The document's data, from the cache if it was prepared before; `encoder` receives the statistics of the training rows.

    Raises DataError for a file or row that
    cannot be used, for a finding whose policy is Fail, and if nothing is left to learn from.
    """
    sources = prepared_sources(spec, resolver)
    resources = resolve_resources(spec.data.augmentation, resolver)
    folder = resolver.cache / "prepared" / _cache_key(spec, encoder, sources, resources)
    with exclusive(folder):
        if not folder.exists():
            with write_folder_atomically(folder) as temporary:
                progress = ProgressTracker(report_progress)
                _Preparation(spec, encoder, temporary, progress).run(sources, resources)
    encoder.set_statistics(json.loads((folder / FACTS).read_text()))
    return _load(folder, spec)


def prepared_sources(spec: config.TrainSpec, resolver: SourceResolver) -> Sources:
    """The sources whose rows become sequences: data.replay only for experience replay, because EWC reads it by itself."""
    sources = resolver.sources(spec.data)
    if not spec.training.replay:
        del sources[REPLAY]
    return sources


def _cache_key(spec: config.TrainSpec, encoder: Encoder, sources: Sources, resources: AugmentationResources) -> str:
    data, few_shot = spec.data, spec.evaluation.few_shot
    identity = {
        "layout": LAYOUT,
        "encoder": encoder.fingerprint,
        "sources": {section: [source.identity for source in listed] for section, listed in sources.items()},
        "held out": [data.evaluation_fraction, data.folds and data.folds.document()],
        "packing": [spec.packing, data.max_length],
        "groups": mixing.group_kind(data),
        "augmentation": data.augmentation and [data.augmentation.document(), spec.training.seed, resources.identity],
        "checks": [data.checks.document(), detector_for(data.checks).identity],
        "few shot": few_shot and [few_shot.document(), spec.training.seed],
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class _Preparation:
    """One preparation, which writes its files into `folder`."""

    spec: config.TrainSpec
    encoder: Encoder
    folder: Path
    progress: ProgressTracker

    def run(self, sources: Sources, resources: AugmentationResources) -> None:
        """Check, augment, encode and pack the rows, and write the report."""
        data = self.spec.data
        # Loaded first, so that a model that cannot be used is reported before the rows are read.
        augment: Callable[[Iterable[SplitRow]], Iterator[SplitRow]] = iter
        if data.augmentation:
            augment = load_augmenter(data.augmentation, resources, self.spec.training.seed, self.progress)
        self.progress.start("rows checked")
        inspected = inspect(RowStream(data, sources), data.checks, self.progress)
        facts = self._collect_statistics(inspected.stream)
        self.encoder.set_statistics(facts)
        (self.folder / FACTS).write_text(json.dumps(facts))

        self.progress.start("rows encoded", self._count_rows(inspected))
        writers = {}
        for split in SPLITS:
            origins = OriginWriter(_origins_file(self.folder, split)) if split in TRAINING_SPLITS else None
            writers[split] = ExampleWriter(self.folder / f"{split}.examples", self.encoder.fields, origins)
        group = mixing.group_function(data)
        write_examples(augment(inspected.stream), self.encoder, writers, group, self.progress.advance)
        for writer in writers.values():
            writer.close()

        counts = {split: writer.counts for split, writer in writers.items()}
        findings = inspected.findings + encode_findings(counts, data.checks)
        validate_examples(self.spec, counts, findings)
        reports = self._store_sequences(writers, inspected)
        few_shot = self._store_few_shot(inspected.stream)
        report = DataReport(
            train=reports[TRAIN], replay=reports.get(REPLAY), evaluation=reports.get(EVALUATION),
            padding_is_end_of_text=is_padding_end_of_text(self.encoder), few_shot=few_shot,
            findings=sorted(findings, key=lambda finding: finding.severity_order), sources=describe_sources(sources),
        )  # fmt: skip
        first_rows = list(chain.from_iterable(counts[TRAIN].first_rows.values()))
        (self.folder / FIRST_ROWS).write_text(json.dumps(first_rows))
        (self.folder / REPORT).write_text(report.model_dump_json())

    def _collect_statistics(self, stream: RowStream) -> dict[str, Any]:
        try:
            return self.encoder.collect_statistics(stream.training)
        except DataError as error:  # all rows could be read, so it is about the rows as a whole
            raise InsufficientDataError(str(error)) from error

    def _count_rows(self, inspected: InspectedRows) -> int:
        """Rows and augmented copies to encode."""
        total = 0
        for split, rows in inspected.rows.items():
            total += rows * (1 + copies_of(self.spec.data.augmentation, split))
        return total

    def _store_sequences(
        self, writers: Mapping[Split, ExampleWriter], inspected: InspectedRows
    ) -> dict[Split, SplitReport]:  # fmt: skip
        reports = {}
        for split, writer in writers.items():
            path = self.folder / f"{split}.arrow"
            if writer.counts.examples:
                with heartbeat.while_busy():
                    packed = self._pack(writer, path)
                    if split == TRAIN:
                        mixing.store_groups(self.folder, writer.counts, packed, self.spec.data)
                    reports[split] = split_report(writer.counts, ArrowDataset(path), inspected, split)
            writer.path.unlink(missing_ok=True)
        return reports

    def _pack(self, writer: ExampleWriter, path: Path) -> list[int] | None:
        """Store the examples as sequences; if they are packed, returns the number of sequences of each run of examples."""
        if self.spec.packing:
            return pack(writer.path, path, self.spec.data.max_length, mixing.run_lengths(writer.counts))
        writer.path.rename(path)
        return None

    def _store_few_shot(self, stream: RowStream) -> FewShotReport | None:
        few_shot, seed = self.spec.evaluation.few_shot, self.spec.training.seed
        if few_shot is None:
            return None
        self.progress.start("rows read for few-shot examples")
        pool = draw_pool(self.progress.over(stream.training()), self.encoder, few_shot.examples, seed)
        prompter = FewShotPrompter(self.encoder, pool, few_shot.examples, seed)
        writer = ExampleWriter(self.folder / "few-shot.examples", self.encoder.fields)
        evaluation = (split_row for split_row in self.progress.over(stream) if split_row.split == EVALUATION)
        write_examples(
            prompter.add_examples(evaluation), self.encoder, {EVALUATION: writer},
            group=lambda split_row: 0, advance=lambda count: None,
        )  # fmt: skip
        writer.close()
        self._pack(writer, self.folder / FEW_SHOT)
        writer.path.unlink(missing_ok=True)
        return prompter.report()


def _load(folder: Path, spec: config.TrainSpec) -> Prepared:
    report = DataReport.model_validate_json((folder / REPORT).read_text())
    files = {split: folder / f"{split}.arrow" for split in SPLITS}
    train = ArrowDataset(*(files[split] for split in TRAINING_SPLITS if files[split].exists()))
    evaluation = ArrowDataset(files[EVALUATION]) if files[EVALUATION].exists() else None
    few_shot = ArrowDataset(folder / FEW_SHOT) if (folder / FEW_SHOT).exists() else None
    new = report.train.rows
    mixture = mixing.with_replay(mixing.load_mixture(folder, spec.data), new, len(train) - new, spec.training.replay)
    # A few long packed sequences may be fewer than the groups, each of which needs a position in the epoch.
    epoch = max(new, len(mixture.shares)) if mixture else new
    first_rows = [FirstRow(*row) for row in json.loads((folder / FIRST_ROWS).read_text())]
    origins = Origins(train, [_origins_file(folder, split) for split in TRAINING_SPLITS])
    return Prepared(train, evaluation, few_shot, report, mixture, epoch, first_rows, origins)


def _origins_file(folder: Path, split: Split) -> Path:
    return folder / f"{split}.origins.arrow"
