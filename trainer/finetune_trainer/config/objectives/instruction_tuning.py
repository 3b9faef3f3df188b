"""Options for InstructionTuning."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.objectives.chat import ChatObjectiveConfig


class InstructionTuningConfig(ChatObjectiveConfig):
    """Answer as the assistant of a conversation does, whose words alone are learnt (Ouyang et al. 2022, arXiv:2203.02155)."""

    packable: ClassVar[bool] = True
    smoothable: ClassVar[bool] = True
    promptable: ClassVar[bool] = True
    in_context: ClassVar[bool] = True

    format: Literal["Messages", "PromptCompletion"] = Field(
        "Messages",
        description="Messages reads conversations, from the column messages; PromptCompletion a text that a user says and one "
        "that the assistant answers, from the columns prompt and completion.",
    )
    loss_on: Literal["Assistant", "LastAssistant", "All"] = Field(
        "Assistant", description="What is learnt: all that the assistant says, its last message, or every token."
    )

    @property
    def roles(self) -> tuple[str, ...]:
        return ("messages",) if self.format == "Messages" else ("prompt", "completion")
