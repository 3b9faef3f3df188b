"""Addresses of a job as this machine sees them: what is relative, missing here, or only there in a cluster."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from finetune_operator.api import FineTuneJob
from finetune_trainer.config.uris import Location, UriReference, dotted_path, uri_references

FILE, CLAIM = "file://", "pvc://"


def localized(spec: dict[str, Any], here: Path) -> dict[str, Any]:
    """The trainer's document with each relative file:// address made absolute; what it was relative to is `here`."""
    for address in uri_references(spec):
        if address.uri is not None and address.uri.startswith(FILE):
            address.section[address.key] = FILE + str(here / address.uri.removeprefix(FILE))
    return spec


def missing_files(job: FineTuneJob, here: Path) -> list[tuple[Location, str]]:
    """Each file:// address that is read and where nothing lies: the field, and one sentence."""
    return [
        (
            address.field,
            f"{dotted_path(address.field)}: {address.uri} does not exist: correct the address, or put the file there",
        )
        for address in _beginning_with(FILE, job)
        if not address.writes and not _exists(here / str(address.uri).removeprefix(FILE))
    ]


def claims(job: FineTuneJob) -> list[tuple[Location, str]]:
    """Each pvc:// address, which means nothing outside of a cluster: the field, and one sentence."""
    return [
        (
            address.field,
            f"{dotted_path(address.field)}: {address.uri} exists in a cluster only: use file:// for a run on this machine",
        )
        for address in _beginning_with(CLAIM, job)
    ]


def path_of(uri: str | None) -> Path | None:
    """The folder at a file:// address; None for addresses of other kinds."""
    return Path(uri.removeprefix(FILE)) if uri is not None and uri.startswith(FILE) else None


def _beginning_with(scheme: str, job: FineTuneJob) -> list[UriReference]:
    found = uri_references(job.spec.train_spec().document(), "spec")
    return [address for address in found if address.uri is not None and address.uri.startswith(scheme)]


def _exists(path: Path) -> bool:
    # Path.glob takes no absolute patterns.
    return path.exists() or (glob.has_magic(str(path)) and any(glob.iglob(str(path), recursive=True)))  # noqa: PTH207
