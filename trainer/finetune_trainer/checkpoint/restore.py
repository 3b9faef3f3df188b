"""Finds the newest checkpoint that is whole, brings each rank the files it reads, and loads them.

Every file is compared with the manifest's size and hash before anything is loaded. If one of them differs on any rank, all
ranks go back to the checkpoint before; the broken manifest is set aside, so that its step can be committed anew.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune_trainer.checkpoint import random_state, universal
from finetune_trainer.checkpoint.engine import load
from finetune_trainer.checkpoint.files import is_intact
from finetune_trainer.checkpoint.manifest import (
    VERSION,
    File,
    Manifest,
    canonical,
    committed_steps,
    first_difference,
    hash_of,
    manifest_path,
)
from finetune_trainer.checkpoint.topology import Topology
from finetune_trainer.distributed.collectives import on_every_rank, on_first_rank
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.base import Storage

log = logging.getLogger(__name__)

CLIENT_KEY = "finetune"  # under which DeepSpeed keeps what the loop stores


@dataclass(frozen=True)
class Restored:
    """What was loaded: the manifest, and what the loop gave to `save`."""

    manifest: Manifest
    client_state: dict[str, Any]


def rank_file(rank: int) -> str:
    """Name of the file that holds what only one rank has: the state of its random generators."""
    return f"rank-{rank:05d}.pt"


def restore(
    engine: Any, storage: Storage, identity: Mapping[str, Any], world: ProcessGroup, work_dir: Path,
    among: Sequence[int] | None = None,
) -> Restored | None:  # fmt: skip
    """Loads the newest whole checkpoint into `engine` and the random generators; None when there is none. Collective.

    With `among` it is the first whole one of these steps.

    Raises ConfigurationError when the storage belongs to another run or the checkpoint cannot be converted, and StorageError
    when the storage does not answer; in neither case anything in it has changed.
    """
    topology = Topology.of(engine, world.size)
    while manifest := on_first_rank(world, lambda: newest(storage, identity, among)):
        source = Topology(manifest.zero_stage, manifest.world_size, manifest.precision)
        topology.validate_conversion_from(source)
        is_direct = topology.reads(source)
        folder = _folder(storage, manifest, work_dir)
        bring = partial(_bring, storage, manifest, _wanted(manifest, world, everything=not is_direct), folder)
        if world.any(not on_every_rank(world, bring)):
            on_first_rank(world, partial(set_aside, storage, manifest))
            continue
        client_state = _load(engine, folder, world, is_direct, work_dir)
        world.barrier()
        if world.local_rank == 0:
            shutil.rmtree(work_dir / "restore", ignore_errors=True)
        how = "resumed from" if among is None else "went back to"
        log.info("%s step %d: %s", how, manifest.step, manifest.saved(storage).uri)
        return Restored(manifest, client_state)
    return None


def newest(storage: Storage, identity: Mapping[str, Any], among: Sequence[int] | None = None) -> Manifest | None:
    """The newest manifest that can be read, or the first of the steps `among`; raises ConfigurationError for another run's."""
    committed = committed_steps(storage)
    for step in committed if among is None else [step for step in among if step in committed]:
        content = storage.get(manifest_path(step))
        try:
            document = json.loads(content)
            if isinstance(document, dict) and document.get("version", VERSION) != VERSION:
                raise ConfigurationError(
                    f"spec.checkpoint.storage: {storage.uri} was written by another version of the trainer (manifest version "
                    f"{document['version']}, not {VERSION}): use that version, or choose an empty prefix"
                )
            manifest = Manifest.model_validate(document)
        except (ValueError, ValidationError) as error:
            log.warning("the manifest of step %d cannot be read and is passed over: %s", step, error)
            continue
        validate_same_run(storage, manifest, identity)
        return manifest
    return None


def validate_same_run(storage: Storage, manifest: Manifest, identity: Mapping[str, Any]) -> None:
    """Raises ConfigurationError, naming the first field that differs, unless `identity` is the manifest's."""
    if manifest.identity_hash == hash_of(identity):
        return
    difference = first_difference(manifest.identity, canonical(identity)) or "its identity differs"
    raise ConfigurationError(
        f"spec.checkpoint.storage: {storage.uri} holds checkpoints of another run ({difference}): choose an empty prefix, "
        "or give the document its old value back"
    )


def set_aside(storage: Storage, manifest: Manifest) -> None:
    """Takes a manifest whose files are not what it says out of the way, but keeps it for whoever wants to know."""
    log.warning("the checkpoint of step %d is damaged and not used; the one before is tried", manifest.step)
    path = manifest_path(manifest.step)
    storage.put(f"rejected/step-{manifest.step:08d}-{manifest.attempt}.json", storage.get(path))
    storage.delete(path)


def _folder(storage: Storage, manifest: Manifest, work_dir: Path) -> Path:
    # Where the storage is a folder, files are read where they lie.
    return storage.folder / manifest.folder if storage.folder else work_dir / "restore" / Path(manifest.folder).name


def _wanted(manifest: Manifest, world: ProcessGroup, everything: bool) -> list[File]:
    """The files this rank brings: its own, and on each node one rank those that all read, or that are to be converted."""
    if everything:
        return manifest.files if world.local_rank == 0 else []
    common = [file for file in manifest.files if file.is_common and world.local_rank == 0]
    return common + [file for file in manifest.files if file.rank == world.rank and not file.is_common]


def _bring(storage: Storage, manifest: Manifest, wanted: list[File], folder: Path) -> bool:
    sizes = {entry.path: entry.size for entry in storage.list(manifest.folder)}
    for file in wanted:
        path = f"{manifest.folder}/{file.name}"
        if sizes.get(path) != file.size:
            log.warning("%s has %s bytes, not %d", storage.child(path).uri, sizes.get(path, "no"), file.size)
            return False
        if storage.folder is None:
            storage.download(path, folder / file.name)
        if not is_intact(folder / file.name, file):
            log.warning("%s does not have the hash that its manifest names", storage.child(path).uri)
            return False
    return True


def _load(engine: Any, folder: Path, world: ProcessGroup, is_direct: bool, work_dir: Path) -> dict[str, Any]:
    if is_direct:
        _, state = engine.load_checkpoint(str(folder.parent), tag=folder.name)
        own = folder / rank_file(world.rank)
        if own.is_file():
            random_state.restore(load(own))
    else:
        state = universal.load_converted(engine, folder, work_dir / "restore" / "universal", world)
    result: dict[str, Any] = state[CLIENT_KEY]
    return result
