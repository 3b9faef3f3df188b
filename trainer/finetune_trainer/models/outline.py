"""The document's model without its weights, for checks that need no more than its layers."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from transformers import PreTrainedModel

from finetune_trainer.config import ModelConfig, TrainSpec
from finetune_trainer.models.loading import validate_positions
from finetune_trainer.models.model_config import build_model_config
from finetune_trainer.models.source import fetch_model_folder
from finetune_trainer.objectives import Objective
from finetune_trainer.storage.base import Credentials

log = logging.getLogger(__name__)


def validate_lengths(spec: TrainSpec, objective: Objective, cache: Path, credentials: Credentials) -> None:
    """Raise ConfigurationError if a sequence can be longer than the model's positions; the objective must have its statistics.

    Downloads no weights.
    """
    for member in objective.members.values():
        if member.encoder.max_lengths and spec.objective.config.processor == "Tokenizer":
            outline = _build_outline(spec.model, member, cache, credentials)
            if outline is not None:
                validate_positions(outline, member.encoder.max_lengths, spec.method.config.prefix_length)


def _build_outline(config: ModelConfig, objective: Objective, cache: Path, credentials: Credentials) -> PreTrainedModel | None:
    """The model on torch's meta device; None for a family that cannot be created there."""
    folder = fetch_model_folder(config, cache=cache, credentials=credentials) if config.source is not None else None
    model_config = build_model_config(config, folder, objective)
    try:
        with torch.device("meta"):
            model: PreTrainedModel = objective.model_setup.auto_class.from_config(
                model_config, trust_remote_code=config.trust_remote_code
            )
    except Exception:  # a family's code may need real tensors; a run, which has them, makes the check
        log.debug("", exc_info=True)
        return None
    return model
