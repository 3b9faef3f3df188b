"""Samples of the text that the exported model generates for the prompts of the document."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch

from finetune_trainer.config import GenerationConfig
from finetune_trainer.export.reports import REPORTS
from finetune_trainer.huggingface.generation import token_heartbeat
from finetune_trainer.huggingface.pretrained import count_tokens, max_positions
from finetune_trainer.objectives import Objective
from finetune_trainer.storage.base import Storage

log = logging.getLogger(__name__)


def store_samples(
    folder: Path, target: Storage, objective: Objective, generation: GenerationConfig, trained_model: Any
) -> None:
    """Generate samples and store them as samples.json among the reports of the stored model."""
    samples = generate_samples(folder, objective, generation, trained_model)
    target.put(f"{REPORTS}/samples.json", json.dumps(samples, indent=2, ensure_ascii=False).encode() + b"\n")


def generate_samples(
    folder: Path, objective: Objective, generation: GenerationConfig, trained_model: Any
) -> list[dict[str, str]]:
    """Samples of the exported model in `folder`; for an adapter, which lacks its base model, of the trained model.

    The model is stored by now, so errors are logged and do not fail the run.
    """
    if not (folder / "adapter_config.json").exists():
        return _generate(str(folder), objective, generation)
    if any(hasattr(parameter, "ds_id") for parameter in trained_model.parameters()):
        log.warning("no samples: with zeroStage 3 and export.mergeAdapters: false no rank has the whole model")
        return []
    return _generate(trained_model.eval(), objective, generation)


def _generate(model: Any, objective: Objective, generation: GenerationConfig) -> list[dict[str, str]]:
    from transformers import pipeline

    samples: list[dict[str, str]] = []
    try:
        task = objective.model_setup.pipeline_task
        generate = pipeline(task, model=model, tokenizer=objective.processor, device=_choose_device(model))
        generate.model.generation_config.max_length = None  # transformers warns of it each time max_new_tokens is set too
        positions = max_positions(generate.model)
        for prompt in generation.prompts:
            text, max_new_tokens = objective.model_setup.format_prompt(prompt), generation.max_new_tokens
            if positions is not None:
                max_new_tokens = min(max_new_tokens, positions - count_tokens(text, objective.processor))
            if max_new_tokens < 1:
                log.warning("no sample of %r: it takes all of the %d positions of the model", prompt, positions)
                continue
            answer = generate(
                text, max_new_tokens=max_new_tokens, do_sample=False, return_full_text=False,
                stopping_criteria=token_heartbeat(),
            )  # fmt: skip
            samples.append({"prompt": prompt, "continuation": answer[0]["generated_text"]})
            log.info("sample: %r -> %r", prompt, samples[-1]["continuation"])
    except (RuntimeError, ValueError, IndexError, MemoryError, OSError):
        log.warning("no more samples", exc_info=True)
    return samples


def _choose_device(model: Any) -> torch.device:
    """The model's device; for a folder the GPU if it has room for a second copy of the model, else the CPU."""
    if not isinstance(model, str):
        return torch.device(model.device)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    size = sum(file.stat().st_size for file in Path(model).glob("*.safetensors"))
    free, _ = torch.cuda.mem_get_info()
    return torch.device("cuda", torch.cuda.current_device()) if free > 1.5 * size else torch.device("cpu")
