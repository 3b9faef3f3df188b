"""Learn to answer from conversations (Ouyang et al. 2022, arXiv:2203.02155)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import pyarrow

from finetune_trainer.config.objectives.instruction_tuning import InstructionTuningConfig
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus, split_or_truncate
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.base import Encoder, Objective, ObjectiveContext
from finetune_trainer.objectives.causal_lm import CausalLMCollator
from finetune_trainer.objectives.inputs.chat import (
    ASSISTANT,
    LOSS_MASK,
    ChatRenderer,
    Messages,
    RenderedChat,
    masked_labels,
)
from finetune_trainer.objectives.inputs.tokenization import encoding_fingerprint, require_eos_token
from finetune_trainer.objectives.losses.from_outputs import NextTokenLoss
from finetune_trainer.objectives.metrics.token_accuracy import TokenAccuracy
from finetune_trainer.objectives.model_setups.causal import ChatModelSetup


class InstructionTuning(Objective):
    """Cross entropy of the next token, over the tokens that the assistant says; batches are those of CausalLM."""

    @classmethod
    def assemble(cls, config: InstructionTuningConfig, context: ObjectiveContext, processor: Any) -> Self:
        """Raises ConfigurationError for a tokenizer without end-of-text token, or with a chat template that cannot be used."""
        require_eos_token(processor)
        renderer = ChatRenderer(config, context, processor)
        loss = NextTokenLoss(context.label_smoothing)
        return cls(
            encoder=ChatEncoder(processor, context, config, renderer),
            collator=MaskedLabelsCollator(processor),
            model_setup=ChatModelSetup(renderer=renderer),
            loss=loss,
            metrics=TokenAccuracy(loss, "accuracy", with_perplexity=True),
        )


class MaskedLabelsCollator(CausalLMCollator):
    """Sequences in which only the tokens of the loss mask are labels."""

    def labels(self, sample: Sample) -> Tokens:
        """The labels of a sample, [tokens] int64, -100 where the loss mask is 0."""
        return masked_labels(sample)


class ChatEncoder(Encoder):
    """Conversations, rendered by the chat template and never split."""

    fields = MappingProxyType({TOKENS: pyarrow.list_(pyarrow.int32()), LOSS_MASK: pyarrow.list_(pyarrow.int8())})

    def __init__(
        self, processor: Any, context: ObjectiveContext, config: InstructionTuningConfig, renderer: ChatRenderer
    ) -> None:
        super().__init__(processor, context)
        self.config = config
        self.renderer = renderer

    @property
    def fingerprint(self) -> Any:
        tokens = encoding_fingerprint(self.processor, self.context)
        return [tokens, self.renderer.template, self.config.format, self.config.loss_on]

    def encode(self, rows: Sequence[Row]) -> Iterator[EncodedRow]:
        """A conversation that is too long is truncated at its end, and left out if no label remains."""
        max_length, overlong = self.context.max_length, self.context.overlong
        for tokens, mask in self.renderer.tokenize([self._render(row) for row in rows]):
            pieces, status = split_or_truncate(np.arange(len(tokens)), max_length, overlong)
            if pieces and not mask[pieces[0]][1:].any():  # the first token is never predicted
                pieces, status = [], EncodeStatus.MASKED
            yield EncodedRow([{TOKENS: tokens[piece], LOSS_MASK: mask[piece]} for piece in pieces], status)

    def _render(self, row: Row) -> RenderedChat:
        """The row's conversation, with its examples after its instructions."""
        messages, role = self._messages(row)
        instructions = _count_instructions(messages)
        examples = [message for example in row.examples for message in self._example_turns(example)]
        chat = self.renderer.render(
            [*messages[:instructions], *examples, *messages[instructions:]], row, role, instructions + len(examples)
        )
        match self.config.loss_on:
            case "All":
                return chat._replace(answers=[(0, len(chat.text))])
            case "LastAssistant":
                return chat._replace(answers=chat.answers[-1:])
        return chat

    def _example_turns(self, example: Row) -> Messages:
        """An example as turns of another conversation: from after its instructions to the assistant's last message."""
        messages, _ = self._messages(example)
        end = max(index for index, message in enumerate(messages, start=1) if message["role"] == ASSISTANT)
        return messages[_count_instructions(messages) : end]

    def _messages(self, row: Row) -> tuple[Messages, str]:
        """The conversation, and the role of the column that an error about it names."""
        if self.config.format == "PromptCompletion":
            if not isinstance(row.values["prompt"], str):
                raise row.error_for("prompt", "is a list, and PromptCompletion needs a string: correct the row")
            prompt = {"role": "user", "content": row.values["prompt"]}
            return [prompt, {"role": ASSISTANT, "content": row.values["completion"]}], "completion"
        messages = row.values["messages"]
        if self.config.loss_on != "All" and all(message["role"] != ASSISTANT for message in messages):
            raise row.error_for(
                "messages", "has no message of the assistant, so there is nothing to learn: correct or remove the row"
            )
        return messages, "messages"


def _count_instructions(messages: Messages) -> int:
    """The number of system and developer messages at the start."""
    for index, message in enumerate(messages):
        if message["role"] not in ("system", "developer"):
            return index
    return len(messages)
