"""The Secrets and PersistentVolumeClaims that the URIs of a job refer to."""

from __future__ import annotations

from finetune_operator.api import FineTuneJob
from finetune_trainer.config.storage_schemes import PVC
from finetune_trainer.config.uris import dotted_path


def referenced_secrets(job: FineTuneJob) -> dict[str, str]:
    """Map the name of each Secret to the first field that names it."""
    fields: dict[str, str] = {}
    for reference in job.uri_references:
        if reference.credentials is not None:
            fields.setdefault(reference.credentials, f"{dotted_path(reference.where)}.credentials")
    return fields


def referenced_claims(job: FineTuneJob) -> dict[str, bool]:
    """Map the name of each PersistentVolumeClaim to whether the run writes to it."""
    is_written: dict[str, bool] = {}
    for reference in job.uri_references:
        if reference.uri is not None and PVC.matches(reference.uri):
            claim = PVC.path(reference.uri).split("/", 1)[0]
            is_written[claim] = is_written.get(claim, False) or reference.writes
    return is_written
