"""Removes checkpoints that are no longer kept, and files of attempts that died before they committed."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_trainer.checkpoint.manifest import Manifest, committed_steps, manifest_path, stored_files
from finetune_trainer.storage.base import Storage


def retain(storage: Storage, keep_last: int, newest: Manifest, best_first: Sequence[int] = ()) -> None:
    """Keeps the last `keep_last` checkpoints, among them `newest`, which this attempt has just committed.

    Of the steps `best_first` the first that has a checkpoint keeps it.

    Manifests go first: a removal that is interrupted leaves files that nobody finds, never a checkpoint that lacks some.
    Then goes every file up to the newest step that no manifest names; files of later steps may be on their way.
    """
    # A later step is of a life that this one has not resumed from, hence does not trust.
    steps = [step for step in committed_steps(storage) if step <= newest.step]
    best = next((step for step in best_first if step in steps), None)
    for step in steps[max(keep_last, 1) :]:
        if step != best:
            storage.delete(manifest_path(step))
    kept = {(newest.step, newest.attempt)} | {
        (step, Manifest.model_validate_json(storage.get(manifest_path(step))).attempt)
        for step in committed_steps(storage)
        if step != newest.step
    }
    for step, attempt, path in stored_files(storage):
        if step <= newest.step and (step, attempt) not in kept:
            storage.delete(path)
