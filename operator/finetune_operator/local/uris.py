"""The URIs of a job on this machine: relative paths, missing files, and URIs that exist in a cluster only."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from finetune_operator.api import FineTuneJob
from finetune_trainer.config.storage_schemes import FILE, PVC, StorageScheme
from finetune_trainer.config.uris import Location, UriReference, dotted_path, uri_references


def resolve_file_uris(document: dict[str, Any], base_directory: Path) -> dict[str, Any]:
    """Make each relative file:// URI of the trainer's document absolute, in place; returns the document."""
    for reference in uri_references(document):
        if reference.uri is not None and FILE.matches(reference.uri):
            path = base_directory / FILE.path(reference.uri)
            reference.section[reference.key] = f"{FILE.prefix}{path}"
    return document


def missing_files(job: FineTuneJob, base_directory: Path) -> list[tuple[Location, str]]:
    """Find the file:// URIs to read from that match no file: the location of each field and an error sentence."""
    missing = []
    for reference in _references_with(FILE, job):
        path = base_directory / FILE.path(str(reference.uri))
        if not reference.writes and not _exists(path):
            field = dotted_path(reference.field)
            sentence = f"{field}: {reference.uri} does not exist: correct the path, or put the file there"
            missing.append((reference.field, sentence))
    return missing


def cluster_only_uris(job: FineTuneJob) -> list[str]:
    """Find the pvc:// URIs: an error sentence for each."""
    errors = []
    for reference in _references_with(PVC, job):
        field = dotted_path(reference.field)
        errors.append(f"{field}: {reference.uri} exists in a cluster only: use file:// to run on this machine")
    return errors


def local_path(uri: str) -> Path | None:
    """The path of a file:// URI; None for other schemes."""
    return Path(FILE.path(uri)) if FILE.matches(uri) else None


def _references_with(scheme: StorageScheme, job: FineTuneJob) -> list[UriReference]:
    references = uri_references(job.spec.train_document(), "spec")
    return [reference for reference in references if scheme.matches(reference.uri)]


def _exists(path: Path) -> bool:
    # Path.glob takes no absolute patterns.
    return path.exists() or (glob.has_magic(str(path)) and any(glob.iglob(str(path), recursive=True)))  # noqa: PTH207
