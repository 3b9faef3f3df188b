"""Config that objectives over conversations share."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.conversation import ConversationPreset
from finetune_trainer.config.objectives.base import ObjectiveConfig

AnswerKind = Literal["completion", "pair"]


class ChatObjectiveConfig(ObjectiveConfig):
    """Base of the configs of objectives over conversations."""

    adds_special_tokens: ClassVar[bool] = False
    generates_text: ClassVar[bool] = True
    answers: ClassVar[AnswerKind] = "completion"
    """Whether a row holds one answer, at the end of its conversation or in a column of its own, or a pair of answers."""

    chat_template: str | None = Field(
        None,
        min_length=1,
        max_length=131_072,
        description="Template of a conversation, in transformers' Jinja format; it is exported with the tokenizer. By default "
        "the tokenizer's own. Models from scratch have a default: each message is its role, a line break, its content, the "
        "end-of-text token and a line break; it writes tools, tool calls and reasoning as Qwen's does.",
    )

    @property
    def default_preset(self) -> ConversationPreset:
        """The preset of sources that name none."""
        return "Auto"
