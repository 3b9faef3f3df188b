"""Causal language models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import AutoModelForCausalLM

from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.base import ModelSetup
from finetune_trainer.objectives.inputs.chat import ChatRenderer


@dataclass(kw_only=True)
class CausalModelSetup(ModelSetup):
    """A causal language model that generates text."""

    pipeline_task: str = "text-generation"
    auto_class: Any = AutoModelForCausalLM
    peft_task_type: str | None = "CAUSAL_LM"
    is_causal: bool | None = True


@dataclass(kw_only=True)
class ChatModelSetup(CausalModelSetup):
    """A causal language model that answers as the assistant of a conversation."""

    renderer: ChatRenderer

    def prepare(self, model: Any, group: ProcessGroup) -> None:
        """Make generation stop at the end of a turn."""
        self.renderer.stop_generation_at_end_of_turn(model)

    def format_prompt(self, prompt: str) -> Any:
        """The prompt as a user's message."""
        return [{"role": "user", "content": prompt}]
