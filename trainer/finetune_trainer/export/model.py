"""The finished model as a folder that `transformers.pipeline()` loads, stored where the document says."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from finetune_trainer.config import GenerationConfig, TrainSpec
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.export import weights
from finetune_trainer.export.adapter import save_adapter
from finetune_trainer.huggingface.pretrained import positions_of, tokens_of
from finetune_trainer.methods.heads import names_of
from finetune_trainer.methods.peft_layers import is_adapted
from finetune_trainer.objectives import Objective
from finetune_trainer.storage.base import Storage

PIPELINE_WRITES = 256
"""Tokens that transformers' text-generation pipeline adds where neither its caller nor the model says how many."""
SHARD = "5GB"  # of a file of weights; between two of them an upload gives a sign of life
log = logging.getLogger(__name__)


def save_model(
    model: Any, objective: Objective, spec: TrainSpec, world: ProcessGroup, folder: Path, alive: Callable[[], None]
) -> None:
    """Writes weights, configuration and tokenizer into `folder`, which is emptied first; rank 0 writes, all must call it.

    With several tasks each has a folder of its own in it.

    The weights have the precision they were computed with. With `mergeAdapters: false` the folder holds the adapter alone.
    """
    keep_apart = is_adapted(model) and not spec.export.merge_adapters
    state = (weights.adapter_alone if keep_apart else weights.whole_model)(model, world, alive)
    if not world.is_first:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if keep_apart:
        save_adapter(model, state, folder, (spec.model.source or "").removeprefix("hf://").removeprefix("file://"))
        objective.processor.save_pretrained(folder)
    else:
        plain = model.get_base_model() if is_adapted(model) else model
        names = names_of(plain)
        for name, part in objective.parts(plain).items():
            within = f"{names[id(part)]}.".lstrip(".")
            own = {key.removeprefix(within): tensor for key, tensor in state.items() if key.startswith(within)}
            part.config.use_cache = True
            processor = objective.members()[name].processor
            _end_at_positions(part, processor)
            part.save_pretrained(folder / name, state_dict=own, max_shard_size=SHARD)
            processor.save_pretrained(folder / name)
    save_documents(folder, objective.extra_files())
    alive()


def _end_at_positions(model: Any, processor: Any) -> None:
    """Has truncation cut where the model's positions end, and generation stop there if a pipeline's defaults would go on."""
    positions = positions_of(model)
    if positions is None:
        return
    if isinstance(processor, PreTrainedTokenizerBase):
        processor.model_max_length = min(processor.model_max_length, positions)
    writes = model.can_generate() and not model.config.is_encoder_decoder
    if writes and positions < 2 * PIPELINE_WRITES and model.generation_config.max_length is None:
        model.generation_config.max_length = positions


def save_documents(folder: Path, documents: Mapping[str, Any]) -> None:
    """Writes each as JSON to its path below the folder."""
    for path, content in documents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def upload(folder: Path, target: Storage, alive: Callable[[], None]) -> None:
    """Stores the folder, the largest files first, so that config.json appears when the weights are there.

    Files of the same names are written over: doing it again after a restart changes nothing.
    """
    files = sorted((file for file in folder.rglob("*") if file.is_file()), key=lambda file: -file.stat().st_size)
    for file in files:
        target.put(file.relative_to(folder).as_posix(), file)
        alive()
    log.info("the model is stored at %s", target.uri)


def take_samples(folder: Path, objective: Objective, wanted: GenerationConfig, trained: Any) -> list[dict[str, str]]:
    """Samples of the exported model; of an adapter alone, which needs its base, from the model that was trained.

    By now the model is stored: what goes wrong here is logged, and is no reason for the run to have failed.
    """
    if (folder / "adapter_config.json").exists():
        if any(hasattr(parameter, "ds_id") for parameter in trained.parameters()):
            log.warning("no samples: with zeroStage 3 and export.mergeAdapters: false no rank has the whole model")
            return []
        return _samples(trained.eval(), objective, wanted)
    return _samples(str(folder), objective, wanted)


def _samples(model: Any, objective: Objective, wanted: GenerationConfig) -> list[dict[str, str]]:
    from transformers import pipeline

    results = []
    try:
        device = _device(model)
        generate = pipeline(objective.task, model=model, tokenizer=objective.processor, device=device)
        generate.model.generation_config.max_length = None  # beside max_new_tokens it would be warned of each time
        positions = positions_of(generate.model)
        for prompt in wanted.prompts:
            asked, room = objective.asked(prompt), wanted.max_new_tokens
            if positions is not None:
                room = min(room, positions - tokens_of(asked, objective.processor))
            if room < 1:
                log.warning("no sample of %r: it takes all of the %d positions of the model", prompt, positions)
                continue
            answer = generate(asked, max_new_tokens=room, do_sample=False, return_full_text=False)
            results.append({"prompt": prompt, "continuation": answer[0]["generated_text"]})
            log.info("sample: %r -> %r", prompt, results[-1]["continuation"])
    except (RuntimeError, ValueError, IndexError, MemoryError, OSError):
        log.warning("no more samples", exc_info=True)
    return results


def _device(model: Any) -> torch.device:
    """Where the model is; for a folder the GPU if a second copy of the model fits beside the trained one, else the host."""
    if not isinstance(model, str):
        return torch.device(model.device)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    size = sum(file.stat().st_size for file in Path(model).glob("*.safetensors"))
    free, _ = torch.cuda.mem_get_info()
    return torch.device("cuda", torch.cuda.current_device()) if free > 1.5 * size else torch.device("cpu")
