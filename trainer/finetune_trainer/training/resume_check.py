"""Compares a run with the newest checkpoint of its storage, as early as each fact is known; the first rank does it for all."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from finetune_trainer.checkpoint import resume_policy
from finetune_trainer.checkpoint.data_record import MAX_NAMED_FILES, DataRecord, SourceRecord
from finetune_trainer.checkpoint.restore import find_manifest
from finetune_trainer.checkpoint.run_identity import identity
from finetune_trainer.config import TrainSpec
from finetune_trainer.data.checks.report import DataReport
from finetune_trainer.data.sources.base import Source
from finetune_trainer.data.sources.content import FileDigests
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.protocol.outcome import DataError
from finetune_trainer.storage.base import Storage
from finetune_trainer.training.lr_schedule import learning_rate_factor


class Resumption(NamedTuple):
    """How a run resumes: the record of its data for its own checkpoints, and what is different from the run so far."""

    data: DataRecord
    continuation: str | None = None
    """A sentence on how the run goes on, if it does not go on as planned."""
    has_other_evaluation_rows: bool = False
    """Whether metrics from before cannot be compared with later ones."""


class ResumeCheck:
    """Raises ConfigurationError or DataError as soon as the run is known not to be that of the newest checkpoint."""

    def __init__(self, spec: TrainSpec, storage: Storage) -> None:
        """Compare the document, before anything is read."""
        self._spec, self._uri = spec, storage.uri
        self._manifest = find_manifest(storage, identity(spec))
        self._data = DataRecord(sources={})
        if spec.training.max_steps is not None:
            self._compare_length(spec.training.max_steps)

    def compare_files(self, resolver: SourceResolver) -> None:
        """Compare the contents of the data's files, before any row is read."""
        digests = FileDigests(resolver.cache)
        sections = resolver.sources(self._spec.data)
        records = {}
        for section, sources in sections.items():
            for index, source in enumerate(sources):
                field = f"data.{section}[{index}]"
                records[field] = record_source(source, field, digests)
        digests.save()
        self._data = DataRecord(sources=records)
        if self._manifest:
            resume_policy.validate_same_files(self._uri, self._manifest, self._data)

    def resumption(self, report: DataReport, total_steps: int) -> Resumption:
        """Compare the prepared sequences and the length, before the model is loaded."""
        rows = report.digests
        data = self._data.model_copy(update={"rows": rows})
        if self._manifest is None:
            return Resumption(data)
        augmentation = self._spec.data.augmentation
        are_translated = augmentation is not None and augmentation.back_translation is not None
        resume_policy.validate_same_rows(self._uri, self._manifest, rows, are_translated=are_translated)
        self._compare_length(total_steps)
        training = self._spec.training

        def rate(step: int, total_steps: int) -> float:
            return training.optimizer.learning_rate * learning_rate_factor(training.schedule, step, total_steps)

        continuation = resume_policy.describe_continuation(self._manifest, total_steps, rate)
        return Resumption(data, continuation, resume_policy.has_other_evaluation_rows(self._manifest, rows))

    def _compare_length(self, total_steps: int) -> None:
        if self._manifest:
            field = "epochs" if self._spec.training.max_steps is None else "maxSteps"
            resume_policy.validate_length(self._uri, self._manifest, total_steps, field)


def record_source(source: Source, field: str, digests: FileDigests) -> SourceRecord:
    """The digests of a source's files; raises DataError for a file that cannot be read."""
    try:
        contents = source.contents(digests)
    except OSError as error:
        raise DataError(
            f"spec.{field}.source: {error.filename} cannot be read ({error.strerror}): correct its owner or mode"
        ) from error
    combined = hashlib.sha256("".join(digest for _, digest in contents).encode()).hexdigest()
    named = dict(contents) if len(contents) <= MAX_NAMED_FILES else {}
    return SourceRecord(digest=combined, count=len(contents), files=named)
