"""Turns the parts of all ranks into a checkpoint, by one manifest that is put last."""

from __future__ import annotations

import time
from collections.abc import Callable

from pydantic import ValidationError

from finetune_trainer.checkpoint.manifest import OWNER, Manifest, Part, manifest_path, part_path
from finetune_trainer.protocol.outcome import StorageError
from finetune_trainer.storage.base import Storage


class Refused(StorageError):
    """A checkpoint cannot be committed, and trying again would not help."""


_POLL_SECONDS = (0.05, 2.0)  # from, to


def put_part(storage: Storage, step: int, attempt: str, part: Part) -> None:
    """Says that all files of a rank are stored, or why they are not."""
    storage.put(part_path(step, attempt, part.rank), part.model_dump_json(by_alias=True, exclude_none=True).encode())


def collect_parts(
    storage: Storage, step: int, attempt: str, world_size: int, patience: float, clock: Callable[[], float] = time.monotonic
) -> list[Part]:
    """The parts of all ranks, in order; waits at most `patience` seconds for them.

    Raises Refused when a part is still missing then, or says that its rank failed.
    """
    parts: dict[int, Part] = {}
    deadline, pause = clock() + patience, _POLL_SECONDS[0]
    while True:
        for rank in range(world_size):
            path = part_path(step, attempt, rank)
            if rank not in parts and storage.exists(path):
                parts[rank] = Part.model_validate_json(storage.get(path))
                if parts[rank].error:
                    raise Refused(f"rank {rank}: {parts[rank].error}")
        if len(parts) == world_size:
            return [parts[rank] for rank in range(world_size)]
        if clock() >= deadline:
            missing = ", ".join(str(rank) for rank in range(world_size) if rank not in parts)
            raise Refused(f"the checkpoint of step {step} lacks the part of rank {missing} after {patience:.0f} s")
        time.sleep(pause)
        pause = min(2 * pause, _POLL_SECONDS[1])


def commit(storage: Storage, manifest: Manifest) -> None:
    """Puts the manifest, if this attempt still owns the storage and there is none of that step.

    Raises Refused otherwise; nothing that was committed before is ever overwritten.
    """
    owner = storage.get(OWNER).decode()
    if owner != manifest.attempt:
        raise Refused(f"the checkpoint of step {manifest.step} is not committed: attempt {owner} has taken over this run")
    path, content = manifest_path(manifest.step), manifest.model_dump_json(by_alias=True).encode()
    if storage.put_if_absent(path, content):
        return
    try:
        present = Manifest.model_validate_json(storage.get(path))
    except ValidationError:
        # What cannot be read is no checkpoint, and would keep this step from ever having one.
        storage.put(path, content)
        return
    # A request whose answer was lost is sent again, and then meets its own manifest.
    if present.attempt != manifest.attempt:
        where = storage.child(path).uri
        raise Refused(f"the checkpoint of step {manifest.step} is already committed by {present.attempt}: {where}")
