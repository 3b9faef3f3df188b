"""Addresses of a job as this machine sees them: what is relative, missing here, or only there in a cluster."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune_operator.api import FineTuneJob

Location = tuple[int | str, ...]
FILE, CLAIM = "file://", "pvc://"


def localized(spec: dict[str, Any], here: Path) -> dict[str, Any]:
    """The trainer's document with each relative file:// address made absolute; what it was relative to is `here`."""
    for section, key, _ in _addresses(spec):
        uri = section[key]
        if uri.startswith(FILE):
            section[key] = FILE + str(here / uri.removeprefix(FILE))
    return spec


def missing_files(job: FineTuneJob, here: Path) -> list[tuple[Location, str]]:
    """Each file:// address that is read and where nothing lies: the field, and one sentence."""
    return [
        (location, f"{_name(location)}: {section[key]} does not exist: correct the address, or put the file there")
        for section, key, location in _addresses(job.spec.document(), "spec")
        if key == "source" and section[key].startswith(FILE) and not _exists(here / section[key].removeprefix(FILE))
    ]


def claims(job: FineTuneJob) -> list[tuple[Location, str]]:
    """Each pvc:// address, which means nothing outside of a cluster: the field, and one sentence."""
    return [
        (location, f"{_name(location)}: {section[key]} exists in a cluster only: use file:// for a run on this machine")
        for section, key, location in _addresses(job.spec.document(), "spec")
        if section[key].startswith(CLAIM)
    ]


def path_of(uri: str | None) -> Path | None:
    """The folder at a file:// address; None for addresses of other kinds."""
    return Path(uri.removeprefix(FILE)) if uri is not None and uri.startswith(FILE) else None


def _addresses(spec: dict[str, Any], *root: str) -> Iterator[tuple[dict[str, Any], str, Location]]:
    """Each address in a document: the section and key that hold it, and the field's location."""
    model, data = spec["model"], spec["data"]
    augmentation = data.get("augmentation") or {}
    translation = augmentation.get("backTranslation") or {}
    places: list[tuple[dict[str, Any], str, Location]] = [
        (model, "source", ("model",)),
        (model.get("tokenizer") or {}, "source", ("model", "tokenizer")),
        *(
            (dataset, "source", ("data", side, index))
            for side in ("train", "evaluation", "earlier")
            for index, dataset in enumerate(data.get(side, []))
        ),
        (augmentation.get("synonyms") or {}, "source", ("data", "augmentation", "synonyms")),
        *(
            (translation.get(name) or {}, "source", ("data", "augmentation", "backTranslation", name))
            for name in ("forward", "back")
        ),
        (spec["checkpoint"], "storage", ("checkpoint",)),
        (spec.get("export") or {}, "storage", ("export",)),
    ]
    return ((section, key, (*root, *location, key)) for section, key, location in places if section.get(key))


def _name(location: Location) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _exists(path: Path) -> bool:
    # Path.glob takes no absolute patterns.
    return path.exists() or (glob.has_magic(str(path)) and any(glob.iglob(str(path), recursive=True)))  # noqa: PTH207
