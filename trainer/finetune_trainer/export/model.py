"""Saves the trained model as a folder that `transformers.pipeline()` loads, and uploads it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from finetune_trainer.config import ExportConfig, ModelConfig
from finetune_trainer.config.storage_schemes import FILE, HUB
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.export.adapter import save_adapter
from finetune_trainer.export.weights import Weights, gather_adapter_weights, gather_model_weights
from finetune_trainer.huggingface.pretrained import max_positions
from finetune_trainer.methods.components.heads import module_names
from finetune_trainer.methods.components.peft_layers import is_peft_model, unwrap_peft_model
from finetune_trainer.objectives import Objective
from finetune_trainer.protocol import heartbeat
from finetune_trainer.storage.base import Storage

PIPELINE_NEW_TOKENS = 256
"""The number of tokens that transformers' text-generation pipeline generates by default."""
SHARD_SIZE = "5GB"  # of a file of weights
log = logging.getLogger(__name__)


def save_model(
    model: Any, objective: Objective, export: ExportConfig, source: ModelConfig, group: ProcessGroup, folder: Path
) -> None:  # fmt: skip
    """Write weights, configuration and tokenizer into `folder`, which is emptied first; rank 0 writes, all ranks call this.

    With several tasks each task has its own folder in it. The weights keep the precision they were trained in. With
    `mergeAdapters: false` the folder holds only the adapter of the model at `source`.
    """
    saves_adapter = is_peft_model(model) and not export.merge_adapters
    gather_weights = gather_adapter_weights if saves_adapter else gather_model_weights
    state = gather_weights(model, group)
    if not group.is_first:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if saves_adapter:
        save_adapter(model, state, folder, FILE.path(HUB.path(source.source or "")))
        objective.processor.save_pretrained(folder)
    else:
        with heartbeat.while_busy():
            _save_full_models(unwrap_peft_model(model), objective, state, folder)
    write_json_files(folder, objective.model_setup.extra_files())


def _save_full_models(model: Any, objective: Objective, state: Weights, folder: Path) -> None:
    """Save the model of each task with its weights and its processor."""
    names = module_names(model)
    for name, task_model in objective.exported_models(model).items():
        prefix = f"{names[id(task_model)]}.".lstrip(".")
        task_state = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
        task_model.config.use_cache = True
        processor = objective.members[name].processor
        _limit_to_positions(task_model, processor)
        _untie_changed_weights(task_model, task_state)
        task_model.save_pretrained(folder / name, state_dict=task_state, max_shard_size=SHARD_SIZE)
        processor.save_pretrained(folder / name)


def _untie_changed_weights(model: Any, state: Weights) -> None:
    """Say in the configuration that weights are not tied if an adapter has changed one of them, such as a tied head."""
    for name, source in getattr(model, "all_tied_weights_keys", {}).items():
        if name in state and source in state and not torch.equal(state[name], state[source]):
            log.info("%s is exported separately from %s, because an adapter changed only one of them", name, source)
            model.config.tie_word_embeddings = False


def _limit_to_positions(model: Any, processor: Any) -> None:
    """Limit truncation to the model's positions, and generation too if a pipeline's default could exceed them."""
    positions = max_positions(model)
    if positions is None:
        return
    if isinstance(processor, PreTrainedTokenizerBase):
        processor.model_max_length = min(processor.model_max_length, positions)
    is_decoder = model.can_generate() and not model.config.is_encoder_decoder
    if is_decoder and positions < 2 * PIPELINE_NEW_TOKENS and model.generation_config.max_length is None:
        model.generation_config.max_length = positions


def write_json_files(folder: Path, documents: Mapping[str, Any]) -> None:
    """Write each document as JSON to its path in the folder."""
    for path, content in documents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def upload_folder(folder: Path, target: Storage) -> None:
    """Upload the folder, the largest files first, so that config.json appears after the weights.

    Files of the same name are overwritten, so an upload that is repeated after a restart gives the same result.
    """
    files = [file for file in folder.rglob("*") if file.is_file()]
    files.sort(key=lambda file: -file.stat().st_size)
    for file in files:
        target.put(file.relative_to(folder).as_posix(), file)
        heartbeat.beat()
    log.info("the model is stored at %s", target.uri)
