"""Deletes checkpoints that are no longer kept, and files of attempts that died before they committed."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_trainer.checkpoint.manifest import Manifest, committed_steps, manifest_path, read_manifest, stored_files
from finetune_trainer.storage.base import Storage


def apply_retention(storage: Storage, keep_last: int, newest: Manifest, ranked_steps: Sequence[int] = ()) -> None:
    """Keep the last `keep_last` checkpoints up to `newest`, which this attempt has just committed.

    Also keep the best checkpoint: the first of the steps `ranked_steps` that has one.

    Manifests are deleted before files: an interrupted deletion leaves files that no manifest lists, never a checkpoint that
    lacks a file. Then every file of a step up to the newest that no manifest lists is deleted; files of later steps may belong
    to a save in progress, and those of a step whose manifest is unreadable may be needed to repair it.
    """
    # A later step was committed by an earlier attempt that this attempt did not resume from, so it does not count as one.
    steps = [step for step in committed_steps(storage) if step <= newest.step]
    best = next((step for step in ranked_steps if step in steps), None)
    for step in steps[max(keep_last, 1) :]:
        if step != best:
            storage.delete(manifest_path(step))
    attempts: dict[int, str | None] = {newest.step: newest.attempt}
    for step in committed_steps(storage):
        if step != newest.step:
            manifest = read_manifest(storage, step)
            attempts[step] = manifest.attempt if manifest else None
    for file in stored_files(storage):
        is_unreadable = file.step in attempts and attempts[file.step] is None
        if file.step <= newest.step and not is_unreadable and attempts.get(file.step) != file.attempt:
            storage.delete(file.path)
