"""What a job's pods need to reach its addresses."""

from __future__ import annotations

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.storage_schemes import PVC
from finetune_trainer.config.uris import dotted_path, uri_references


def secrets(spec: TrainSpec) -> dict[str, str]:
    """Secret -> the first field that names it."""
    found: dict[str, str] = {}
    for address in uri_references(spec.document(), "spec"):
        if address.credentials is not None:
            found.setdefault(address.credentials, f"{dotted_path(address.where)}.credentials")
    return found


def claims(spec: TrainSpec) -> dict[str, bool]:
    """PersistentVolumeClaim -> whether the run writes to it."""
    found: dict[str, bool] = {}
    for address in uri_references(spec.document()):
        if address.uri is not None and PVC.matches(address.uri):
            claim = PVC.path(address.uri).split("/", 1)[0]
            found[claim] = found.get(claim, False) or address.writes
    return found
