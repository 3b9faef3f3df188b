"""Whether a run may resume from a checkpoint: pure comparisons of the document and the data with a manifest.

Each function raises one sentence that names what differs. The length of a run, its evaluation, its checkpoints and its export
may change; what decides the meaning of the weights and the order of the data may not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from finetune_trainer.checkpoint.data_record import DataRecord
from finetune_trainer.checkpoint.manifest import Manifest
from finetune_trainer.checkpoint.run_identity import differences
from finetune_trainer.protocol.outcome import ConfigurationError, DataError

MAX_NAMED_DIFFERENCES = 4
log = logging.getLogger(__name__)


def validate_same_document(uri: str, manifest: Manifest, identity: Mapping[str, Any]) -> None:
    """Raise ConfigurationError, naming the fields that differ, unless the document is that of the run in `uri`.

    The addresses of training data may differ if the manifest has the digests of their files, which are compared later.
    """
    different = differences(manifest.identity, identity)
    if manifest.data is not None:
        different = [difference for difference in different if not difference.is_data_address]
    if not different:
        return
    named = "; ".join(map(str, different[:MAX_NAMED_DIFFERENCES]))
    if len(different) > MAX_NAMED_DIFFERENCES:
        named += f"; and {len(different) - MAX_NAMED_DIFFERENCES} more"
    raise ConfigurationError(
        f"{different[0].field}: spec.checkpoint.storage {uri} holds the checkpoints of another run, which is at "
        f"{manifest.position} ({named}): restore the old document, or choose another spec.checkpoint.storage"
    )


def validate_same_files(uri: str, manifest: Manifest, current: DataRecord) -> None:
    """Raise DataError, naming the files, if the contents of the training data changed since the checkpoint."""
    if manifest.data is None:
        log.warning("the checkpoint of %s has no digests of its data: changes of the data cannot be noticed", manifest.position)
        return
    for field, change in manifest.data.source_changes(current, of_evaluation=False):
        raise DataError(
            f"spec.{field}.source: {change} since the run in {uri} stored {manifest.position}: restore the old data, or choose "
            "another spec.checkpoint.storage"
        )
    for field, change in manifest.data.source_changes(current, of_evaluation=True):
        log.warning("spec.%s: %s since the run stored %s", field, change, manifest.position)


def validate_same_rows(uri: str, manifest: Manifest, rows: Mapping[str, str], *, are_translated: bool = False) -> None:
    """Raise DataError if the training data became other sequences than in the run of the checkpoint.

    `rows` has the digest of each split's sequences. Texts that a model has translated may differ on another device, so that
    a run with them goes on.
    """
    if not (_is_changed(manifest, rows, "train") or _is_changed(manifest, rows, "replay")):
        return
    if are_translated:
        log.warning(
            "the back-translated training data differs from that of %s: this device translates otherwise", manifest.position
        )
        return
    raise DataError(
        f"spec.data: the training data becomes other sequences than when the run in {uri} stored {manifest.position}, because "
        "the tokenizer, a dataset of the hub, evaluation data that a check compares, or a library changed: restore the old "
        "one, or choose another spec.checkpoint.storage"
    )


def has_other_evaluation_rows(manifest: Manifest, rows: Mapping[str, str]) -> bool:
    """Whether the evaluation data changed, so that earlier metrics and new ones cannot be compared."""
    return "evaluation" in rows and _is_changed(manifest, rows, "evaluation")


def _is_changed(manifest: Manifest, rows: Mapping[str, str], split: str) -> bool:
    return manifest.data is not None and manifest.data.rows.get(split) != rows.get(split)


def validate_length(uri: str, manifest: Manifest, total_steps: int, field: str) -> None:
    """Raise ConfigurationError if the run has trained more steps already; `field` is the one that sets its length."""
    if total_steps < manifest.step:
        raise ConfigurationError(
            f"spec.training.{field}: the run in {uri} has {manifest.step} steps already, more than the {total_steps} of the "
            f"document: set {field} to reach at least {manifest.step} steps, or choose another spec.checkpoint.storage"
        )


def describe_continuation(manifest: Manifest, total_steps: int, rate: Callable[[int, int], float]) -> str | None:
    """One sentence on how the run goes on with another length than the checkpoint's, or that nothing is left to train.

    None if the run goes on as planned. `rate(step, total_steps)` is the learning rate of a step of a run with that many steps.
    """
    step, before = manifest.step, manifest.total_steps or total_steps
    if step == total_steps == before:
        return f"all {step} steps were trained before: the model is exported again"
    if before == total_steps:
        return None
    verb = "prolonged" if total_steps > before else "shortened"
    sentence = f"the run is {verb} from {before} to {total_steps} steps"
    if step == total_steps:
        return f"{sentence}, which it has already trained"
    old, new = rate(step, before), rate(step + 1, total_steps)
    if old == new:
        return f"{sentence}: the learning rate stays at {new:.3g}"
    return (
        f"{sentence}: the schedule now spans {total_steps} steps, so that the learning rate goes from {old:.3g} at step {step} "
        f"to {new:.3g} at step {step + 1}"
    )
