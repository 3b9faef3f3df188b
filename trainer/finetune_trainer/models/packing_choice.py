"""Turns packing off for model families that do not support it, where the document leaves the choice to the trainer."""

from __future__ import annotations

from functools import partial

from finetune_trainer.config import TrainSpec
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.models.loading import ATTENTION_IMPLEMENTATIONS
from finetune_trainer.models.model_config import build_model_config
from finetune_trainer.models.packing_support import explain_missing_support, find_packing_form
from finetune_trainer.models.small_model import create_small_model
from finetune_trainer.models.source import fetch_model_folder
from finetune_trainer.objectives import Objective
from finetune_trainer.protocol import heartbeat


@heartbeat.while_busy()
def settle_packing(spec: TrainSpec, objective: Objective, resolver: SourceResolver) -> TrainSpec:
    """The document with `data.packing: false` if it does not set packing and the model does not support it; notes this.

    Needs no weights: a small model of the same architecture shows whether it keeps documents apart. Call it before the data is
    prepared. Raises ConfigurationError for a model configuration that cannot be used.
    """
    setup, model = objective.model_setup, spec.model
    is_decided = spec.data.packing is not None or not spec.packing
    if is_decided or setup.is_causal is None or model.attention == "FlashAttention2":
        return spec
    folder = None
    if model.source is not None:
        folder = fetch_model_folder(model, cache=resolver.cache, credentials=resolver.credentials)
    config = build_model_config(model, folder, objective)
    create = partial(setup.auto_class.from_config, trust_remote_code=model.trust_remote_code)
    small_model = create_small_model(create, config, ATTENTION_IMPLEMENTATIONS[model.attention])
    if small_model is None or find_packing_form(small_model, setup.is_causal):
        return spec
    setup.notes.append(f"spec.data.packing: {explain_missing_support(config)}, so each sequence holds one row of data")
    return spec.model_copy(update={"data": spec.data.model_copy(update={"packing": False})})
