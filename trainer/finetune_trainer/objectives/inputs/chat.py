"""Conversations as tokens, with the tokens that the assistant says: chat templates alone do not mark these."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from finetune_trainer.config.objectives.chat import ChatObjectiveConfig
from finetune_trainer.data.loading.collate import IGNORE_INDEX
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.records.row import Row
from finetune_trainer.huggingface.special_tokens import add_stop_token, marker_ids
from finetune_trainer.objectives.base import ObjectiveContext
from finetune_trainer.objectives.inputs.chat_coverage import ASSISTANT, Conversation, CoverageFinder, Part
from finetune_trainer.objectives.inputs.chat_template import (
    ChatTemplate,
    Dialect,
    set_chat_template,
    tools_template,
    training_template,
)
from finetune_trainer.objectives.inputs.tokenization import Span, require_offsets, tokenize_with_mask
from finetune_trainer.protocol.outcome import ConfigurationError, first_line

LOSS_MASK = "loss_mask"  # 1 for each token that is a label, 0 for the others


class RenderedChat(NamedTuple):
    """A conversation as text, and the spans of the messages to learn in it, each with its end of turn."""

    text: str
    answers: list[Span]
    drops_names: bool = False
    """Whether the messages name their speakers, and the template does not write the names."""


class ChatRenderer:
    """A tokenizer with its chat template."""

    def __init__(self, config: ChatObjectiveConfig, context: ObjectiveContext, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises ConfigurationError for a tokenizer without a template, and for a template without an end-of-turn token."""
        self._field = f"spec.objective.{context.section}.chatTemplate"
        source = set_chat_template(config, context, tokenizer)
        if source is None:
            raise ConfigurationError(
                f"{self._field}: the tokenizer has no chat template: set the one that the model is to be used with"
            )
        require_offsets(tokenizer)
        self._tokenizer = tokenizer
        template = training_template(tokenizer, source)
        self._template = ChatTemplate(template, tokenizer.special_tokens_map, tools_template(tokenizer))
        self._coverage = CoverageFinder(self._template)
        self.end_of_turn = self._find_end_of_turn(marks_header=template != source)
        """The token with which the assistant ends its turn."""

    @property
    def templates(self) -> Sequence[str]:
        """The template of conversations without tools, and that of conversations with them."""
        return self._template.sources

    def render(
        self, conversation: Conversation, row: Row, role: str, learned: Collection[int], *, whole: bool = False
    ) -> list[RenderedChat]:  # fmt: skip
        """Render the conversation, with the spans of the messages whose indices are `learned`.

        Some templates write an answer in another way once more messages follow; Qwen 3's, for example, strips its reasoning.
        Then each learned message becomes a chat of its own that ends with it, as the model will see it. With `whole` there is
        one chat, which holds everything.

        Raises DataError, about the row's value for `role`, where the template fails or leaves out a part of the conversation.
        """
        try:
            if whole:
                return [self._render_whole(conversation, learned, strict=True)]
            return self._render(conversation, learned)
        except _UnwrittenPartError as error:
            part_role = {"tools": "tools", "options": "template_options"}.get(error.part.kind, role)
            problem = f"{_describe(error.part, conversation)}: {self._advice(error.part, whole)}"
            raise row.error_for(part_role, problem) from None
        except _UnstableTemplateError:
            raise row.error_for(
                role,
                "is a conversation whose beginning the chat template renders differently when more messages follow, so the "
                "assistant's tokens cannot be found: put its text between {% generation %} and {% endgeneration %} in "
                f"{self._field}",
            ) from None
        except Exception as error:  # a template is a program, and may raise anything
            raise row.error_for(
                role, f"does not suit the chat template ({_first_line(error)}): correct the row, or set another {self._field}"
            ) from error

    def tokenize(self, chats: Sequence[RenderedChat]) -> Iterator[tuple[Tokens, Tokens]]:
        """For each conversation its tokens, and 1 for each token that is learned: [tokens] int32 and int8."""
        if not chats:
            return iter(())
        texts, answers = [chat.text for chat in chats], [chat.answers for chat in chats]
        return tokenize_with_mask(texts, answers, self._tokenizer, add_special_tokens=False)

    def stop_generation_at_end_of_turn(self, model: Any) -> None:
        """Make the model, and its export, stop generation where the assistant ends its turn."""
        add_stop_token(model, self.end_of_turn)

    def _render(self, conversation: Conversation, learned: Collection[int]) -> list[RenderedChat]:
        coverage = self._coverage.find(conversation)
        if not coverage.stripped_reasoning.intersection(learned):
            try:
                return [self._render_whole(conversation, learned)]
            except _UnstableTemplateError:
                if not learned:
                    raise
        return [self._render_until(conversation, index) for index in learned]

    def _render_whole(self, conversation: Conversation, learned: Collection[int], *, strict: bool = False) -> RenderedChat:
        """The conversation as one text; with `strict` it holds all reasoning."""
        last = 0 if strict else len(conversation.messages)
        dialect, drops_names = self._require_coverage(conversation, last)
        text, marked = self._template.render(*conversation, dialect)
        answers = [index for index, message in enumerate(conversation.messages) if message["role"] == ASSISTANT]
        if marked is not None and len(marked) == len(answers):
            spans = [span for index, span in zip(answers, marked, strict=True) if index in learned]
        else:
            spans = [self._find_span(conversation, index, dialect, text) for index in learned]
        return RenderedChat(text, spans, drops_names)

    def _render_until(self, conversation: Conversation, index: int) -> RenderedChat:
        """The conversation up to a message, which is learned."""
        conversation = conversation.until(index)
        dialect, drops_names = self._require_coverage(conversation, index)
        text, _ = self._template.render(*conversation, dialect)
        return RenderedChat(text, [self._find_span(conversation, index, dialect, text)], drops_names)

    def _require_coverage(self, conversation: Conversation, last: int) -> tuple[Dialect, bool]:
        """Raises _UnwrittenPartError for a part that is lost; reasoning before the message `last` may be."""
        coverage = self._coverage.find(conversation)
        if lost := coverage.lost(last):
            raise _UnwrittenPartError(lost)
        return coverage.dialect, coverage.drops_names

    def _find_span(self, conversation: Conversation, index: int, dialect: Dialect, text: str) -> Span:
        """The span of a message in the conversation's text: what rendering it adds to the conversation before it."""
        messages, context = conversation.messages, conversation[1:]
        after, marked = self._template.render(messages[: index + 1], *context, dialect)
        if not text.startswith(after):
            raise _UnstableTemplateError
        if marked is not None:
            before = len(self._template.render(messages[:index], *context, dialect).text) if index else 0
            return _only_span_after(before, marked)
        if not index:  # templates do not expect to be rendered without messages
            return _find_content(messages[0], after, 0), len(after)
        prompt = self._template.render(messages[:index], *context, dialect, prompt=True).text
        if after.startswith(prompt):
            return len(prompt), len(after)
        # The prompt opens the reasoning of an answer that has none: the answer is what begins with its content.
        common = len(os.path.commonprefix([prompt, after]))  # noqa: RUF071  # character by character, as it should
        if common < len(self._template.render(messages[:index], *context, dialect).text):
            raise _UnstableTemplateError
        return _find_content(messages[index], after, common), len(after)

    def _find_end_of_turn(self, *, marks_header: bool) -> int:
        question = Conversation([{"role": "user", "content": "a"}, {"role": ASSISTANT, "content": "b"}])
        try:
            if marks_header:
                self._template.exclude_header(self._coverage.find(question).dialect)
            chat = self._render_whole(question, [1])
        except _UnstableTemplateError:
            raise ConfigurationError(
                f"{self._field}: the chat template writes a question differently once the answer follows: put the assistant's "
                "words between {% generation %} and {% endgeneration %}"
            ) from None
        except _UnwrittenPartError as error:
            raise ConfigurationError(
                f"{self._field}: the chat template does not write the content of a message of the "
                f"{question.messages[error.part.message]['role']}: correct it"
            ) from None
        except Exception as error:
            raise ConfigurationError(
                f"{self._field}: the chat template fails on a question and its answer ({_first_line(error)}): correct it"
            ) from error
        [(tokens, mask)] = self.tokenize([chat])
        visible = [int(token) for token in tokens[mask == 1] if self._tokenizer.decode([token]).strip()]
        special = marker_ids(self._tokenizer)
        if not visible or visible[-1] not in special:
            raise ConfigurationError(
                f"{self._field}: the chat template ends what the assistant says with no special token, so the model could not "
                "learn to stop: end it with {{ eos_token }}"
            )
        return visible[-1]

    def _advice(self, part: Part, whole: bool) -> str:
        other_template = f"set {self._field} to one that writes it"
        if part.kind == "reasoning":
            return f"set lossOn: Assistant, or {other_template}" if whole else f"put it into the content, or {other_template}"
        return f"remove it, or {other_template}"


class _UnstableTemplateError(Exception):
    """A template rendered the start of a conversation differently when more messages followed."""


class _UnwrittenPartError(Exception):
    """A template left out a part of a conversation."""

    def __init__(self, part: Part) -> None:
        super().__init__(part)
        self.part = part


def is_blank(message: Mapping[str, Any]) -> bool:
    """Whether a message says nothing and calls no tool."""
    return not ((message.get("content") or "").strip() or message.get("tool_calls") or message.get("reasoning_content"))


def is_learned(message: Mapping[str, Any]) -> bool:
    """Whether the assistant says the message, and its weight is not 0."""
    return message["role"] == ASSISTANT and message.get("weight") != 0


def masked_labels(sample: Sample) -> Tokens:
    """The labels of a sample, [tokens] int64, -100 where the loss mask is 0."""
    labels: Tokens = np.where(sample[LOSS_MASK] == 1, sample[TOKENS].astype(np.int64), IGNORE_INDEX)
    return labels


def _find_content(message: Mapping[str, Any], text: str, start: int) -> int:
    """Where the content of a message begins in a text, from a position on."""
    content = (message.get("content") or "").strip()
    found = text.find(content, start) if content and not message.get("reasoning_content") else -1
    if found < 0:
        raise _UnstableTemplateError
    return found


def _only_span_after(start: int, spans: Sequence[Span]) -> Span:
    """The marked span of the last message; several, for example words and tool calls, count from the first to the last."""
    later = [span for span in spans if span[0] >= start]
    if not later:
        raise _UnstableTemplateError
    return later[0][0], later[-1][1]


def _describe(part: Part, conversation: Conversation) -> str:
    if part.kind == "tools":
        return "holds tools, which the chat template does not write"
    if part.kind == "options":
        return f"holds {part.text}, which the chat template does not read"
    role = conversation.messages[part.message]["role"]
    name = {"content": f"a content of the {role}", "reasoning": "reasoning", "tool_calls": "tool calls"}[part.kind]
    return f"has in message {part.message + 1} {name}, which the chat template does not write"


def _first_line(error: Exception) -> str:
    return first_line(error) or type(error).__name__
