"""Chooses the task that an exported model was trained for."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from finetune_trainer.protocol.outcome import ConfigurationError

# The task of a folder without a model card, by the last part of the name of its transformers class; the first match counts.
TASK_BY_CLASS_SUFFIX = {
    "ForCausalLM": "text-generation", "LMHeadModel": "text-generation", "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification", "ForTokenClassification": "token-classification",
    "ForImageClassification": "image-classification", "ForConditionalGeneration": "text2text-generation",
    "ForQuestionAnswering": "question-answering", "Model": "feature-extraction",
}  # fmt: skip


def choose_task(folder: Path) -> str:
    """The task of the model card, or else of the model's class; raises ConfigurationError if neither names one."""
    task = _task_of_card(folder / "README.md") or _task_of_class(folder / "config.json")
    if task is None:
        raise ConfigurationError(f"MODEL: {folder} does not name its task: add --task, such as --task text-classification")
    return task


def _task_of_card(card: Path) -> str | None:
    from huggingface_hub import ModelCard

    if not card.is_file():
        return None
    with suppress(ValueError):
        task = ModelCard.load(card).data.to_dict().get("pipeline_tag")
        return str(task) if task else None
    return None


def _task_of_class(config: Path) -> str | None:
    if not config.is_file():
        return None
    class_names = json.loads(config.read_text()).get("architectures") or ()
    for suffix, task in TASK_BY_CLASS_SUFFIX.items():
        if any(name.endswith(suffix) for name in class_names):
            return task
    return None
