"""What objectives that learn from conversations share: how one is written down."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.objectives.base import ObjectiveConfig


class ChatObjectiveConfig(ObjectiveConfig):
    """Base of their options."""

    framed: ClassVar[bool] = False
    continues: ClassVar[bool] = True

    chat_template: str | None = Field(
        None,
        min_length=1,
        max_length=131_072,
        description="How a conversation is written down: a Jinja template as transformers has them, which the export keeps. "
        "Absent, it is the tokenizer's own. Models from scratch have a default: each message is its role, a line break, its "
        "content, the end-of-text token and a line break.",
    )
