"""The manifest of a checkpoint, and the paths of manifests and files in the storage.

A manifest alone makes files a checkpoint: it is written last, only if the step has none yet, and lists every file with size and
SHA-256. A restore ignores files that no manifest lists.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import ConfigDict, Field, JsonValue

from finetune_trainer.checkpoint.data_record import DataRecord
from finetune_trainer.checkpoint.parameters import ParameterRecord
from finetune_trainer.config.base import Section
from finetune_trainer.protocol.outcome import ConfigurationError, SavedCheckpoint
from finetune_trainer.storage.base import Storage

log = logging.getLogger(__name__)

VERSION = 2
READABLE_VERSIONS = (1, VERSION)  # version 1 has neither `total_steps` nor `data` nor `parameters`
OWNER = "attempt"  # path of the object with the name of the only attempt that may commit; it fences off earlier attempts
_MANIFEST = re.compile(r"manifests/step-(\d{8,})\.json")
_FOLDER = re.compile(r"checkpoints/step-(\d{8,})-([^/]+)/.+")


class File(Section):
    """One stored file of a checkpoint."""

    name: str = Field(description="Name below the checkpoint's folder.")
    size: int = Field(ge=0, description="Bytes.")
    sha256: str
    rank: int = Field(ge=0, description="The rank that wrote it.")

    @property
    def is_common(self) -> bool:
        """Whether every rank reads it: DeepSpeed names such files by model-parallel rank only, not by data-parallel rank."""
        return self.name.startswith("mp_rank_")


class Part(Section):
    """The files of one rank, stored after them; or the error that prevented it, so that rank 0 need not wait for them."""

    rank: int = Field(ge=0)
    files: list[File] = Field(default_factory=list)
    error: str | None = None


class Manifest(Section):
    """A complete checkpoint. `step`, in finished optimizer steps, is also the position in the data: batchSize rows per step."""

    model_config = ConfigDict(extra="ignore")  # version 1 has a field that is no longer used

    version: int = VERSION
    step: int = Field(ge=0)
    total_steps: int | None = Field(None, ge=1, description="The planned length of the run, which may change when it resumes.")
    attempt: str = Field(description="The attempt that wrote it.")
    world_size: int = Field(ge=1)
    zero_stage: int = Field(ge=0, le=3)
    precision: str = Field(description="The model's number format, which DeepSpeed's file names depend on.")
    identity: dict[str, JsonValue] = Field(description="The part of the document that determines the meaning of the weights.")
    data: DataRecord | None = Field(None, description="Digests of the data, which must be the same when the run resumes.")
    parameters: ParameterRecord | None = Field(None, description="The model's parameters, which must be the same.")
    files: list[File]
    time: str = Field(description="When it was committed, RFC 3339 in UTC.")
    deepspeed: str = Field(description="Version of DeepSpeed that wrote the files.")
    torch: str = Field(description="Version of torch that wrote the files.")

    @property
    def folder(self) -> str:
        """The folder of its files, relative to the storage."""
        return checkpoint_folder(self.step, self.attempt)

    @property
    def position(self) -> str:
        """How far the run had come, for messages."""
        return f"step {self.step}" if self.total_steps is None else f"step {self.step} of {self.total_steps}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def to_saved_checkpoint(self, storage: Storage) -> SavedCheckpoint:
        """The checkpoint as events and the job's status report it."""
        return SavedCheckpoint(step=self.step, time=self.time, uri=storage.child(manifest_path(self.step)).uri)


class StoredFile(NamedTuple):
    """A file below `checkpoints/`, whether a manifest lists it or not."""

    step: int
    attempt: str
    path: str


def manifest_path(step: int) -> str:
    """The path of the manifest of a step."""
    return f"manifests/step-{step:08d}.json"


def checkpoint_folder(step: int, attempt: str) -> str:
    """The folder for the files of a step that an attempt writes."""
    return f"checkpoints/step-{step:08d}-{attempt}"


def part_path(step: int, attempt: str, rank: int) -> str:
    """The path of a rank's part."""
    return f"{checkpoint_folder(step, attempt)}/part-{rank:05d}.json"


def committed_steps(storage: Storage) -> list[int]:
    """Steps that have a manifest, newest first."""
    matches = (_MANIFEST.fullmatch(entry.path) for entry in storage.list("manifests"))
    return sorted((int(match[1]) for match in matches if match), reverse=True)


def stored_files(storage: Storage) -> Iterator[StoredFile]:
    """Every file below `checkpoints/`."""
    for entry in storage.list("checkpoints"):
        if match := _FOLDER.fullmatch(entry.path):
            yield StoredFile(int(match[1]), match[2], entry.path)


def read_manifest(storage: Storage, step: int) -> Manifest | None:
    """The manifest of a step; None if it is unreadable.

    Raises ConfigurationError for a manifest of a version that this trainer does not know.
    """
    content = storage.get(manifest_path(step))
    try:
        document = json.loads(content)
        if isinstance(document, dict) and document.get("version", VERSION) not in READABLE_VERSIONS:
            raise ConfigurationError(
                f"spec.checkpoint.storage: {storage.uri} was written by another version of the trainer (manifest version "
                f"{document['version']}, not {VERSION}): use that version, or choose an empty prefix"
            )
        return Manifest.model_validate(document)
    except ValueError as error:
        log.warning("the manifest of step %d is unreadable and ignored: %s", step, error)
        return None


def utc_timestamp() -> str:
    """The present time, RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
