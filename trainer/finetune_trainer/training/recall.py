"""A run that has completed already ends with the outcome that it had. Imports no torch, so that this takes a moment only."""

from __future__ import annotations

import logging

from finetune_trainer.checkpoint.completion import find_completion
from finetune_trainer.config import TrainSpec
from finetune_trainer.protocol.outcome import Outcome
from finetune_trainer.training.launch_context import LaunchContext
from finetune_trainer.training.output_storage import open_checkpoint_storage

log = logging.getLogger(__name__)


def recall_outcome(spec: TrainSpec, launch: LaunchContext) -> Outcome | None:
    """The outcome of this run if it has completed before; every rank finds the same. Raises TrainerError."""
    if not launch.completes_once:
        return None
    record = find_completion(open_checkpoint_storage(spec.checkpoint, launch.credentials), launch.run_id, spec)
    if record is None:
        return None
    if launch.rank == 0:
        log.info(
            "this run completed at %s, and its model is at %s: nothing is trained or exported again",
            record.time, record.outcome.model,
        )  # fmt: skip
    return record.outcome
