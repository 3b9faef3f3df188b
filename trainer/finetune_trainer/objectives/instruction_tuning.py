"""Learn to answer from conversations (Ouyang et al. 2022, arXiv:2203.02155)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow

from finetune_trainer.config.objectives.instruction_tuning import InstructionTuningConfig
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeIssue, EncodeStatus, split_or_truncate
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.base import Encoder, Objective, ObjectiveContext
from finetune_trainer.objectives.causal_lm import CausalLMCollator
from finetune_trainer.objectives.inputs.chat import LOSS_MASK, ChatRenderer, RenderedChat, is_blank, is_learned, masked_labels
from finetune_trainer.objectives.inputs.chat_coverage import ASSISTANT, Conversation
from finetune_trainer.objectives.inputs.chat_template import Messages
from finetune_trainer.objectives.inputs.tokenization import Span, encoding_fingerprint, require_eos_token
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
        return [tokens, self.renderer.templates, self.config.loss_on]

    def encode(self, rows: Sequence[Row]) -> Iterator[EncodedRow]:
        """A conversation that is too long is truncated at its end, and left out if no label remains.

        A conversation of several answers becomes several examples if the chat template strips the reasoning of earlier ones.
        """
        rendered = [self._render(row) for row in rows]
        sequences = self.renderer.tokenize([chat for row in rendered for chat in row.chats])
        for row in rendered:
            if not row.chats:
                yield EncodedRow([], row.status)
                continue
            encoded = [self._encode(*sequence) for sequence in islice(sequences, len(row.chats))]
            examples = [example for chat_examples, _ in encoded for example in chat_examples]
            yield EncodedRow(examples, _joint_status([status for _, status in encoded]), issues=row.issues)

    def _encode(self, tokens: Tokens, mask: Tokens) -> tuple[list[Sample], EncodeStatus]:
        pieces, status = split_or_truncate(np.arange(len(tokens)), self.context.max_length, self.context.overlong)
        if pieces and not mask[pieces[0]][1:].any():  # the first token is never predicted
            return [], EncodeStatus.MASKED
        return [{TOKENS: tokens[piece], LOSS_MASK: mask[piece]} for piece in pieces], status

    def _render(self, row: Row) -> RenderedRow:
        """The row's conversation, with its examples after its instructions; without chats if there is nothing to learn."""
        turns = _turns(row)
        instructions = _count_instructions(turns.messages)
        examples = [message for example in row.examples for message in _example_turns(example)]
        messages = [*turns.messages[:instructions], *examples, *turns.messages[instructions:]]
        conversation = Conversation(messages, row.values.get("tools", ()), row.values.get("template_options", {}))
        role = next(iter(row.values))
        if self.config.loss_on == "All":
            return RenderedRow([self._render_all(conversation, row, role)])
        learned = [index + len(examples) for index in turns.learned]
        if self.config.loss_on == "LastAssistant":
            learned = learned[-1:]
        weighted = [index for index in learned if is_learned(messages[index])]
        if not learned or any(is_blank(messages[index]) for index in weighted):
            return RenderedRow([], EncodeStatus.UNANSWERED)
        if not weighted:
            return RenderedRow([], EncodeStatus.MASKED)
        has_open_end = learned[-1] < len(messages) - 1
        return RenderedRow(self.renderer.render(conversation, row, role, weighted), has_open_end=has_open_end)

    def _render_all(self, conversation: Conversation, row: Row, role: str) -> RenderedChat:
        """The conversation, learned as a whole but for messages whose weight is 0."""
        masked = [index for index, message in enumerate(conversation.messages) if message.get("weight") == 0]
        masked_answers = [index for index in masked if conversation.messages[index]["role"] == ASSISTANT]
        [chat] = self.renderer.render(conversation, row, role, masked_answers, whole=True)
        return chat._replace(answers=_complement(chat.answers, len(chat.text)))


class RenderedRow(NamedTuple):
    """The chats of a row, and why there are none."""

    chats: list[RenderedChat]
    status: EncodeStatus = EncodeStatus.KEPT
    has_open_end: bool = False

    @property
    def issues(self) -> list[EncodeIssue]:
        """What the chats do not show, or do not teach, of the row."""
        issues = []
        if self.has_open_end:
            issues.append(EncodeIssue.OPEN_END)
        if any(chat.drops_names for chat in self.chats):
            issues.append(EncodeIssue.UNWRITTEN_NAMES)
        return issues


class Turns(NamedTuple):
    """The messages of a row, and the indices of those that the assistant is to learn."""

    messages: Messages
    learned: list[int]


def _turns(row: Row) -> Turns:
    """All answers of a conversation, or those of a completion after its prompt."""
    messages = row.values.get("messages")
    first = 0
    if messages is None:
        prompt = _as_messages(row.values["prompt"], "user")
        messages, first = [*prompt, *_as_messages(row.values["completion"], ASSISTANT)], len(prompt)
    learned = [index for index in range(first, len(messages)) if messages[index]["role"] == ASSISTANT]
    return Turns(messages, learned)


def _as_messages(turn: str | Messages, role: str) -> Messages:
    return [{"role": role, "content": turn}] if isinstance(turn, str) else turn


def _example_turns(example: Row) -> Messages:
    """An example as turns of another conversation: from after its instructions to the assistant's last message."""
    turns = _turns(example)
    return turns.messages[_count_instructions(turns.messages) : turns.learned[-1] + 1]


def _count_instructions(messages: Messages) -> int:
    """The number of system and developer messages at the start."""
    for index, message in enumerate(messages):
        if message["role"] not in ("system", "developer"):
            return index
    return len(messages)


def _complement(spans: Sequence[Span], length: int) -> list[Span]:
    """The spans of a text of this length between those given."""
    edges = [0, *(edge for span in spans for edge in span), length]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]


def _joint_status(statuses: Sequence[EncodeStatus]) -> EncodeStatus:
    """The status of a row with several examples: that of the first which was changed, or that the row was split."""
    changed = next((status for status in statuses if status is not EncodeStatus.KEPT), None)
    if changed is not None:
        return changed
    return EncodeStatus.SPLIT if len(statuses) > 1 else EncodeStatus.KEPT
