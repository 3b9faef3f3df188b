"""How the rows of a source hold conversations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from finetune_trainer.config.base import Section

ConversationPreset = Literal["Auto", "Messages", "ShareGPT", "Alpaca", "PromptCompletion"]
Speaker = Literal["system", "developer", "user", "assistant", "tool", "function_call"]
MessageKey = Annotated[str, Field(min_length=1, max_length=128)]


class ConversationConfig(Section):
    """How rows hold conversations, for InstructionTuning and PreferenceTuning."""

    preset: ConversationPreset = Field(
        "Auto",
        description="Shape of the rows. Messages: a list of messages with role and content. ShareGPT: a list of messages with "
        "from and value. Alpaca: instruction, input, output, system and history. PromptCompletion: a prompt and its answer, as "
        "texts or messages. Auto finds the shape by the source's first row; the data report names it.",
    )
    roles: dict[str, Speaker] = Field(
        default_factory=dict,
        max_length=64,
        description="The role of each name that the data gives to a speaker, besides the usual ones such as human, gpt and "
        "observation. The content of a function_call is the JSON of the assistant's tool calls.",
    )
    role_key: MessageKey | None = Field(
        None, description="Key of a message that names its speaker; found by itself if it is role or from."
    )
    content_key: MessageKey | None = Field(
        None, description="Key of a message that holds its content; found by itself if it is content, value or text."
    )
