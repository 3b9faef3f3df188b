"""Prepares the data of a document for its preview, by the code that prepares it for a run."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path

import transformers

from finetune_trainer.config import TrainSpec
from finetune_trainer.data.preprocessing.prepare import prepared_sources
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.data.sources.row_estimates import estimate_rows
from finetune_trainer.data.sources.sampling import FirstRows, SampleLimit
from finetune_trainer.models.outline import validate_lengths
from finetune_trainer.models.run_data import prepare_run_data
from finetune_trainer.preview.build import build_preview
from finetune_trainer.preview.report import DataPreview, SampledSource
from finetune_trainer.protocol.outcome import InsufficientDataError
from finetune_trainer.storage.base import Credentials

log = logging.getLogger(__name__)


def preview_of(spec: TrainSpec, cache: Path, credentials: Credentials, sample: int | None, rows: int) -> DataPreview:
    """The preview of the document's data, of at most the first `sample` rows of each source; None for all rows.

    If the first rows alone cannot be trained on, such as because all have the same label, all rows are read. Raises the errors
    of a run's preparation, and ConfigurationError for sequences that are too long for the model.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    resolver = SourceResolver(spec.objective, cache, credentials)
    if sample is None:
        return _prepare(spec, resolver, rows)
    try:
        return _prepare(spec, replace(resolver, limit=SampleLimit(sample)), rows)
    except InsufficientDataError as error:
        print(f"the first rows are not enough, so all rows are read ({error})", file=sys.stderr)
        return _prepare(spec, resolver, rows)


def _prepare(spec: TrainSpec, resolver: SourceResolver, rows: int) -> DataPreview:
    spec, objective, data = prepare_run_data(spec, resolver, _show_progress)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    validate_lengths(spec, objective, resolver.cache, resolver.credentials)
    return build_preview(spec, objective, data, _sampled_sources(spec, resolver), rows)


def _sampled_sources(spec: TrainSpec, resolver: SourceResolver) -> list[SampledSource]:
    """The sources of which only the first rows are read."""
    if resolver.limit is None:
        return []
    sampled = []
    for section, listed in prepared_sources(spec, resolver).items():
        for number, source in enumerate(listed):
            if isinstance(source, FirstRows):
                rows, total = len(source.kept), estimate_rows(source.source)
                known = total if total is not None and total > rows else None
                sampled.append(SampledSource(field=f"data.{section}[{number}]", rows=rows, total=known))
    return sampled


def _show_progress(text: str, share: float | None) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", flush=True, file=sys.stderr)
