"""What a checkpoint consists of, and where its pieces lie below the storage.

A manifest is the only thing that makes files a checkpoint: it is put last, only if there is none of that step, and names every
file with size and SHA-256. Files that no manifest names do not exist for a restore.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import Field, JsonValue

from finetune_trainer.config.base import Section
from finetune_trainer.protocol.outcome import SavedCheckpoint
from finetune_trainer.storage.base import Storage

VERSION = 1
OWNER = "attempt"  # names the attempt that may commit; an older one that lives on is fenced off by it
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
        """Whether every rank must read it: DeepSpeed names these by model rank alone, not by data-parallel rank."""
        return self.name.startswith("mp_rank_")


class Part(Section):
    """What one rank stored, put after its files; or why it could not, so that nobody waits for it."""

    rank: int = Field(ge=0)
    files: list[File] = Field(default_factory=list)
    error: str | None = None


class Manifest(Section):
    """A whole checkpoint. `step` finished optimizer steps also say where the data stand: each one takes batchSize rows."""

    version: int = VERSION
    step: int = Field(ge=0)
    attempt: str = Field(description="The life of the process group that wrote it.")
    world_size: int = Field(ge=1)
    zero_stage: int = Field(ge=0, le=3)
    precision: str = Field(description="The model's number format, which DeepSpeed's file names depend on.")
    identity_hash: str = Field(description="SHA-256 of the identity below, in canonical JSON.")
    identity: dict[str, JsonValue] = Field(description="What decides the meaning of the weights.")
    files: list[File]
    time: str = Field(description="When it was committed, RFC 3339 in UTC.")
    deepspeed: str = Field(description="Version that wrote the files.")
    torch: str = Field(description="Version that wrote the files.")

    @property
    def folder(self) -> str:
        """Where its files lie, relative to the storage."""
        return folder_of(self.step, self.attempt)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def saved(self, storage: Storage) -> SavedCheckpoint:
        """What is told of it outside."""
        return SavedCheckpoint(step=self.step, time=self.time, uri=storage.child(manifest_path(self.step)).uri)


def manifest_path(step: int) -> str:
    """Where the manifest of a step lies."""
    return f"manifests/step-{step:08d}.json"


def folder_of(step: int, attempt: str) -> str:
    """Where the files of a step lie that an attempt wrote."""
    return f"checkpoints/step-{step:08d}-{attempt}"


def part_path(step: int, attempt: str, rank: int) -> str:
    """Where a rank says what it stored."""
    return f"{folder_of(step, attempt)}/part-{rank:05d}.json"


def committed_steps(storage: Storage) -> list[int]:
    """Steps that have a manifest, the newest first."""
    found = (_MANIFEST.fullmatch(entry.path) for entry in storage.list("manifests"))
    return sorted((int(match[1]) for match in found if match), reverse=True)


def stored_files(storage: Storage) -> Iterator[tuple[int, str, str]]:
    """Step, attempt and path of every file below `checkpoints/`, whether a manifest names it or not."""
    for entry in storage.list("checkpoints"):
        if match := _FOLDER.fullmatch(entry.path):
            yield int(match[1]), match[2], entry.path


def canonical(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity as JSON gives it back, so that what was stored can be compared with what is."""
    result: dict[str, Any] = json.loads(json.dumps(identity, sort_keys=True))
    return result


def hash_of(identity: Mapping[str, Any]) -> str:
    """SHA-256 of the identity in canonical JSON, hexadecimal."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def first_difference(stored: Any, wanted: Any, path: str = "spec") -> str | None:
    """Names the first field in which two identities differ, with both values; None when they are equal."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        fields = (
            first_difference(stored.get(key), wanted.get(key), f"{path}.{key}") for key in sorted(stored.keys() | wanted.keys())
        )
        return next((field for field in fields if field), None)
    if stored == wanted:
        return None
    return f"{path} is {_shown(stored)} there and {_shown(wanted)} here"


def now() -> str:
    """The time as a manifest gives it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _shown(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
