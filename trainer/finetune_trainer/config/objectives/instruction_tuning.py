"""The config of InstructionTuning."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.conversation import ConversationPreset
from finetune_trainer.config.objectives.base import ReportedMetrics, always
from finetune_trainer.config.objectives.chat import ChatObjectiveConfig


class InstructionTuningConfig(ChatObjectiveConfig):
    """Answer as the assistant of a conversation, with the loss on its messages only (Ouyang et al. 2022, arXiv:2203.02155)."""

    packable: ClassVar[bool] = True
    supports_label_smoothing: ClassVar[bool] = True
    supports_prompt_tuning: ClassVar[bool] = True
    supports_few_shot: ClassVar[bool] = True
    reported_metrics: ClassVar[tuple[ReportedMetrics, ...]] = always("loss", "perplexity", "accuracy")

    columns: ClassVar[tuple[str, ...]] = ("messages",)

    format: Literal["Auto", "Messages", "PromptCompletion"] = Field(
        "Auto", description="The conversation.preset of sources that name none."
    )
    loss_on: Literal["Assistant", "LastAssistant", "All"] = Field(
        "Assistant", description="Tokens that have a loss: all messages of the assistant, its last one, or all tokens."
    )

    @property
    def default_preset(self) -> ConversationPreset:
        return self.format
