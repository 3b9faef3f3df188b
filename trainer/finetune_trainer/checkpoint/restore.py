"""Restores the newest complete checkpoint: finds it, brings each rank the files that it reads, and loads them.

Files that the node still has of its last upload are not downloaded again; see `local_copy`. Every file, wherever it comes from,
is compared with the size and hash in the manifest before any is loaded. If a file differs on any rank, all ranks
fall back to the checkpoint before, and the damaged one's manifest is moved to `rejected/`, so that its step can be committed
again.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from finetune_trainer.checkpoint import random_state, universal
from finetune_trainer.checkpoint.context import CheckpointContext
from finetune_trainer.checkpoint.files import is_intact, load
from finetune_trainer.checkpoint.local_copy import LocalCopy
from finetune_trainer.checkpoint.manifest import File, Manifest, committed_steps, manifest_path, read_manifest
from finetune_trainer.checkpoint.parameters import ParameterRecord
from finetune_trainer.checkpoint.resume_policy import validate_same_document
from finetune_trainer.checkpoint.topology import Topology
from finetune_trainer.distributed.collectives import on_every_rank, on_first_rank
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.storage.base import Storage

log = logging.getLogger(__name__)

CLIENT_KEY = "finetune"  # the key of the loop's state in DeepSpeed's client state


@dataclass(frozen=True)
class Restored:
    """A checkpoint that was loaded: its manifest, and the loop's state that `save` was given."""

    manifest: Manifest
    client_state: dict[str, Any]


def rank_file(rank: int) -> str:
    """Name of the file with the state that belongs to one rank only: its random number generators."""
    return f"rank-{rank:05d}.pt"


def restore(engine: Any, context: CheckpointContext, steps: Sequence[int] | None = None) -> Restored | None:
    """Load the newest complete checkpoint into `engine` and the random number generators. Collective.

    With `steps`, load the first of these steps that has a complete checkpoint. Return None when there is none.

    Raises ConfigurationError when the storage belongs to another run or the checkpoint cannot be converted, and StorageError
    when the storage does not answer; in both cases nothing in the storage has changed.
    """
    storage, group = context.storage, context.group
    topology = Topology.of(engine, group.size)
    parameters = ParameterRecord.of(engine.module)
    while manifest := on_first_rank(group, lambda: find_manifest(storage, context.identity, steps)):
        source = Topology(manifest.zero_stage, manifest.world_size, manifest.precision)
        topology.validate_conversion_from(source)
        if manifest.parameters is not None:
            manifest.parameters.validate_same(parameters, f"the run in {storage.uri} at {manifest.position}")
        is_converted = not topology.can_read(source)
        folder = _files_folder(manifest, context)
        files = _files_to_fetch(manifest, group, all_files=is_converted)
        local_copy = LocalCopy(context.work_dir, group.rank)
        is_complete = on_every_rank(group, partial(_fetch_files, storage, manifest, files, folder, local_copy))
        if group.any(not is_complete):
            on_first_rank(group, partial(quarantine, storage, manifest))
            continue
        client_state = _load(engine, folder, context, manifest.step, is_converted)
        group.barrier()
        if group.local_rank == 0:
            shutil.rmtree(context.restore_dir, ignore_errors=True)
        verb = "resumed from" if steps is None else "went back to"
        log.info("%s step %d: %s", verb, manifest.step, manifest.to_saved_checkpoint(storage).uri)
        return Restored(manifest, client_state)
    return None


def find_manifest(storage: Storage, identity: Mapping[str, Any], steps: Sequence[int] | None = None) -> Manifest | None:
    """The newest readable manifest, or that of the first of `steps` that has one; None when there is none.

    Raises ConfigurationError for a manifest of another run or of another version of the trainer.
    """
    committed = committed_steps(storage)
    candidates = committed
    if steps is not None:
        candidates = [step for step in steps if step in committed]
    for step in candidates:
        manifest = read_manifest(storage, step)
        if manifest is not None:
            validate_same_document(storage.uri, manifest, identity)
            return manifest
    return None


def quarantine(storage: Storage, manifest: Manifest) -> None:
    """Move the manifest of a damaged checkpoint to `rejected/`, where it is kept for analysis."""
    log.warning("the checkpoint of step %d is damaged and not used; trying the one before", manifest.step)
    path = manifest_path(manifest.step)
    storage.put(f"rejected/step-{manifest.step:08d}-{manifest.attempt}.json", storage.get(path))
    storage.delete(path)


def _files_folder(manifest: Manifest, context: CheckpointContext) -> Path:
    """Where the files are read: in place if the storage is a folder, else where they are downloaded."""
    if context.storage.folder is not None:
        return context.storage.folder / manifest.folder
    return context.restore_dir / Path(manifest.folder).name


def _files_to_fetch(manifest: Manifest, group: ProcessGroup, all_files: bool) -> list[File]:
    """The files that this rank downloads and verifies.

    These are its own files. Local rank 0 adds the common files of its node, or with `all_files`, for a conversion, fetches all.
    """
    if all_files:
        return manifest.files if group.local_rank == 0 else []
    common, own = [], []
    for file in manifest.files:
        if file.is_common:
            if group.local_rank == 0:
                common.append(file)
        elif file.rank == group.rank:
            own.append(file)
    return common + own


def _fetch_files(storage: Storage, manifest: Manifest, files: list[File], folder: Path, local_copy: LocalCopy) -> bool:
    """Bring the files to `folder`, unless the storage is a folder; False if one is missing or not intact.

    Files that this node still has are linked, and the others downloaded.
    """
    missing = files
    if storage.folder is None:
        local_copy.clear_others(folder.name)
        missing = [file for file in files if not local_copy.link(file, folder.name, folder / file.name)]
        log.info("%d of %d files of step %d are on this node", len(files) - len(missing), len(files), manifest.step)
    if not missing:
        return True
    sizes = {entry.path: entry.size for entry in storage.list(manifest.folder)}
    for file in missing:
        path = f"{manifest.folder}/{file.name}"
        if sizes.get(path) != file.size:
            log.warning("%s has %s bytes, not %d", storage.child(path).uri, sizes.get(path, "no"), file.size)
            return False
        if storage.folder is None:
            storage.download(path, folder / file.name)
        if not is_intact(folder / file.name, file):
            log.warning("%s does not have the hash in its manifest", storage.child(path).uri)
            return False
    return True


def _load(engine: Any, folder: Path, context: CheckpointContext, step: int, is_converted: bool) -> dict[str, Any]:
    if is_converted:
        state = universal.load_converted(engine, folder, context.restore_dir / "universal", context.group)
        random_state.reseed(step)
    else:
        _, state = engine.load_checkpoint(str(folder.parent), tag=folder.name)
        own = folder / rank_file(context.group.rank)
        if own.is_file():
            random_state.restore(load(own))
        else:
            random_state.reseed(step)
    client_state: dict[str, Any] = state[CLIENT_KEY]
    return client_state
