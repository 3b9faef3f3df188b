"""The commit of a checkpoint: all ranks store their files, then rank 0 stores one manifest.

Invariants:

- A checkpoint exists if and only if its manifest exists. The manifest is written last, in one atomic request.
- A manifest is written only if every rank has stored a part without an error, and a rank stores its part only after all its
  files.
- A manifest is written only by the attempt that the object `attempt` names, so that a process of an earlier attempt that is
  still alive cannot commit. The check and the write are two requests: if another attempt takes over in between, the manifest
  is complete nevertheless, because every attempt writes to its own folder, and the other attempt's commit of that step fails.
- A readable manifest is never overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pydantic import ValidationError

from finetune_trainer.checkpoint.manifest import OWNER, Manifest, Part, manifest_path, part_path
from finetune_trainer.protocol.outcome import StorageError
from finetune_trainer.storage.base import Storage

_POLL_SECONDS = 0.05
_MAX_POLL_SECONDS = 2.0


class CommitError(StorageError):
    """A checkpoint cannot be committed, and a retry would not help."""


def put_part(storage: Storage, step: int, attempt: str, part: Part) -> None:
    """Record that all files of a rank are stored, or the error that prevented it."""
    storage.put(part_path(step, attempt, part.rank), part.model_dump_json(by_alias=True, exclude_none=True).encode())


def collect_parts(
    storage: Storage, step: int, attempt: str, world_size: int, timeout_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> list[Part]:  # fmt: skip
    """The parts of all ranks, in rank order; waits at most `timeout_seconds` for them.

    Raises CommitError when a part is still missing then, or as soon as a part contains an error.
    """
    parts: dict[int, Part] = {}
    deadline = clock() + timeout_seconds
    pause = _POLL_SECONDS
    while True:
        missing = [rank for rank in range(world_size) if rank not in parts]
        for rank in missing:
            part = _read_part(storage, part_path(step, attempt, rank))
            if part is not None:
                parts[rank] = part
        if len(parts) == world_size:
            return [parts[rank] for rank in range(world_size)]
        if clock() >= deadline:
            ranks = ", ".join(str(rank) for rank in range(world_size) if rank not in parts)
            raise CommitError(f"the checkpoint of step {step} lacks the part of rank {ranks} after {timeout_seconds:.0f} s")
        time.sleep(pause)
        pause = min(2 * pause, _MAX_POLL_SECONDS)


def commit(storage: Storage, manifest: Manifest) -> None:
    """Write the manifest, if this attempt still owns the storage and no manifest of that step exists.

    Raises CommitError otherwise.
    """
    owner = storage.get(OWNER).decode()
    if owner != manifest.attempt:
        raise CommitError(f"the checkpoint of step {manifest.step} is not committed: attempt {owner} has taken over this run")
    path, content = manifest_path(manifest.step), manifest.model_dump_json(by_alias=True).encode()
    if storage.put_if_absent(path, content):
        return
    try:
        existing = Manifest.model_validate_json(storage.get(path))
    except ValidationError:
        # An unreadable manifest does not commit anything, and would prevent this step from ever having a checkpoint.
        storage.put(path, content)
        return
    # The client repeats a request whose response was lost; the repeated request then finds its own manifest.
    if existing.attempt != manifest.attempt:
        uri = storage.child(path).uri
        raise CommitError(f"the checkpoint of step {manifest.step} is already committed by {existing.attempt}: {uri}")


def _read_part(storage: Storage, path: str) -> Part | None:
    if not storage.exists(path):
        return None
    part = Part.model_validate_json(storage.get(path))
    if part.error:
        raise CommitError(f"rank {part.rank}: {part.error}")
    return part
