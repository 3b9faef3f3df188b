"""The completion record: how a run ended whose model is stored.

On a cluster, the pods of a completed run may be deleted before the operator has seen that they succeeded. Those that it creates
in their place find the record and report the same outcome again, instead of training or exporting once more.

Like a manifest, the record is one object that is written last, after the model and all reports, and only by the attempt that
owns the storage. It counts for the run and the document that wrote it: after any change, such as more steps or another export,
and for another job with the same storage, the run resumes from its checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import logging

from pydantic import Field, ValidationError

from finetune_trainer.checkpoint.manifest import OWNER, utc_timestamp
from finetune_trainer.config import TrainSpec
from finetune_trainer.config.base import Section
from finetune_trainer.config.uris import uri_references
from finetune_trainer.protocol.outcome import Outcome, StorageError
from finetune_trainer.storage.base import Storage

COMPLETION = "completion.json"  # path of the record in the storage of the checkpoints
log = logging.getLogger(__name__)


class CompletionRecord(Section):
    """The outcome of a completed run, and what it is the outcome of."""

    run: str = Field(description="The run that completed: the UID of its job.")
    digest: str = Field(description="Digest of its document.")
    attempt: str = Field(description="The attempt that wrote the record.")
    time: str = Field(description="When it was written, RFC 3339 in UTC.")
    outcome: Outcome


def record_completion(storage: Storage, run_id: str, attempt: str, spec: TrainSpec, outcome: Outcome) -> None:
    """Store the record of a run whose model is stored, unless a later attempt owns the storage.

    A storage that does not answer is logged only: the run is complete all the same.
    """
    record = CompletionRecord(run=run_id, digest=_digest(spec), attempt=attempt, time=utc_timestamp(), outcome=outcome)
    try:
        owner = storage.get(OWNER).decode()
        if owner != attempt:
            log.warning("the completion of the run is not recorded: attempt %s has taken over", owner)
            return
        storage.put(COMPLETION, record.model_dump_json(by_alias=True, exclude_none=True).encode())
    except StorageError as error:
        log.warning("the completion of the run is not recorded, so that a restart would export the model again: %s", error)


def find_completion(storage: Storage, run_id: str, spec: TrainSpec) -> CompletionRecord | None:
    """The record of this very run with this document; None if it has not completed. Raises StorageError."""
    found = storage.get_versioned(COMPLETION)
    if found is None:
        return None
    try:
        record = CompletionRecord.model_validate_json(found.content)
    except ValidationError:
        log.warning("%s is unreadable and ignored", storage.child(COMPLETION).uri)
        return None
    return record if (record.run, record.digest) == (run_id, _digest(spec)) else None


def _digest(spec: TrainSpec) -> str:
    """Digest of the document without the names of Secrets."""
    document = spec.document()
    for reference in uri_references(document):
        reference.section.pop("credentials", None)
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
