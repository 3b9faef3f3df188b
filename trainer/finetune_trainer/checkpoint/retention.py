"""Deletes checkpoints that are no longer kept, and files of attempts that died before they committed."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_trainer.checkpoint.manifest import Manifest, committed_steps, manifest_path, stored_files
from finetune_trainer.storage.base import Storage


def apply_retention(storage: Storage, keep_last: int, newest: Manifest, ranked_steps: Sequence[int] = ()) -> None:
    """Keep the last `keep_last` checkpoints up to `newest`, which this attempt has just committed.

    Also keep the best checkpoint: the first of the steps `ranked_steps` that has one.

    Manifests are deleted before files: an interrupted deletion leaves files that no manifest lists, never a checkpoint that
    lacks a file. Then every file of a step up to the newest that no manifest lists is deleted; files of later steps may belong
    to a save in progress.
    """
    # A later step was committed by an earlier attempt that this attempt did not resume from, so it does not count as one.
    steps = [step for step in committed_steps(storage) if step <= newest.step]
    best = next((step for step in ranked_steps if step in steps), None)
    for step in steps[max(keep_last, 1) :]:
        if step != best:
            storage.delete(manifest_path(step))
    kept = {(newest.step, newest.attempt)}
    for step in committed_steps(storage):
        if step != newest.step:
            manifest = Manifest.model_validate_json(storage.get(manifest_path(step)))
            kept.add((step, manifest.attempt))
    for file in stored_files(storage):
        if file.step <= newest.step and (file.step, file.attempt) not in kept:
            storage.delete(file.path)
