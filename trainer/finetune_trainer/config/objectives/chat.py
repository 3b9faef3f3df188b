"""Config that objectives over conversations share."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.objectives.base import ObjectiveConfig


class ChatObjectiveConfig(ObjectiveConfig):
    """Base of the configs of objectives over conversations."""

    adds_special_tokens: ClassVar[bool] = False
    generates_text: ClassVar[bool] = True

    chat_template: str | None = Field(
        None,
        min_length=1,
        max_length=131_072,
        description="Template of a conversation, in transformers' Jinja format; it is exported with the tokenizer. By default "
        "the tokenizer's own. Models from scratch have a default: each message is its role, a line break, its content, the "
        "end-of-text token and a line break.",
    )
