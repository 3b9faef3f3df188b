"""Conversations as tokens, with the tokens that the assistant says: chat templates alone do not mark these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template
from trl.chat_template_utils import get_training_chat_template, has_generation_markers

from finetune_trainer.config.objectives.chat import ChatObjectiveConfig
from finetune_trainer.data.loading.collate import IGNORE_INDEX
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.base import ObjectiveContext
from finetune_trainer.objectives.inputs.tokenization import Span, require_offsets, tokenize_with_mask
from finetune_trainer.protocol.outcome import ConfigurationError, first_line

LOSS_MASK = "loss_mask"  # 1 for each token that is a label, 0 for the others
ASSISTANT = "assistant"
Messages = Sequence[Mapping[str, Any]]

DEFAULT_TEMPLATE = (
    "{% for message in messages %}{{ message.role + '\n' + message.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant\n' }}{% endif %}"
)
"""For models from scratch, whose tokenizer has no template. It is ChatML with the end-of-text token for both of ChatML's marks:
every tokenizer here has this token and needs no other, and generation stops at it anyway."""


class RenderedChat(NamedTuple):
    """A conversation as text, and the spans of the assistant's messages in it, each with its end of turn."""

    text: str
    answers: list[Span]


def set_chat_template(config: ChatObjectiveConfig, context: ObjectiveContext, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Give the tokenizer, which is exported with the model, the document's template, or the default for models from scratch.

    Returns the template that it has then, None for none.
    """
    if config.chat_template:
        tokenizer.chat_template = config.chat_template
    elif not tokenizer.chat_template and context.from_scratch:
        tokenizer.chat_template = DEFAULT_TEMPLATE
    return tokenizer.get_chat_template() if tokenizer.chat_template else None


class ChatRenderer:
    """A tokenizer with its chat template."""

    def __init__(self, config: ChatObjectiveConfig, context: ObjectiveContext, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises ConfigurationError for a tokenizer without a template, and for a template without an end-of-turn token."""
        self._field = f"spec.objective.{context.section}.chatTemplate"
        template = set_chat_template(config, context, tokenizer)
        if template is None:
            raise ConfigurationError(
                f"{self._field}: the tokenizer has no chat template: set the one that the model is to be used with"
            )
        require_offsets(tokenizer)
        self._tokenizer = tokenizer
        self.template = _training_template(tokenizer, template)
        self._has_markers = has_generation_markers(self.template)
        self.end_of_turn = self._find_end_of_turn()
        """The token with which the assistant ends its turn."""

    def render(self, messages: Messages, row: Row, role: str, first: int = 0) -> RenderedChat:
        """Render the conversation, with the spans of the assistant's messages from the message `first` on.

        Raises DataError, about the row's value for `role`, where the template fails.
        """
        # Parquet gives a message every key of the column, with None where the row has no value.
        present = [{key: value for key, value in message.items() if value is not None} for message in messages]
        try:
            return self._render_with_spans(present, first)
        except _UnstableTemplateError:
            raise row.error_for(
                role,
                "is a conversation whose beginning the chat template renders differently when more messages follow, so the "
                "assistant's tokens cannot be found: put its text between {% generation %} and {% endgeneration %} in "
                f"{self._field}",
            ) from None
        except Exception as error:  # a template is a program, and may raise anything
            raise row.error_for(role, f"does not suit the chat template ({_first_line(error)}): correct the row") from error

    def tokenize(self, chats: Sequence[RenderedChat]) -> Iterator[tuple[Tokens, Tokens]]:
        """For each conversation its tokens, and 1 for each of the assistant's: [tokens] int32 and int8."""
        texts, answers = zip(*chats, strict=True)
        return tokenize_with_mask(texts, answers, self._tokenizer, add_special_tokens=False)

    def stop_generation_at_end_of_turn(self, model: Any) -> None:
        """Make the model, and its export, stop generation where the assistant ends its turn."""
        stops = model.generation_config.eos_token_id
        if stops is None:
            stops = []
        elif isinstance(stops, int):
            stops = [stops]
        if self.end_of_turn not in stops:
            model.generation_config.eos_token_id = [*stops, self.end_of_turn]

    def _render_with_spans(self, messages: list[dict[str, Any]], first: int = 0) -> RenderedChat:
        answers = [index for index, message in enumerate(messages) if message["role"] == ASSISTANT]
        if self._has_markers:
            text, spans = self._render(messages, return_assistant_tokens_mask=True)
            earlier_answers = [index for index in answers if index < first]
            if earlier_answers:
                _, earlier_spans = self._render(messages[: earlier_answers[-1] + 1], return_assistant_tokens_mask=True)
                spans = spans[len(earlier_spans) :]
            return RenderedChat(text, spans)
        text, _ = self._render(messages)
        return RenderedChat(text, [self._find_span(messages, index, text) for index in answers if index >= first])

    def _find_span(self, messages: list[dict[str, Any]], index: int, text: str) -> Span:
        """The span of a message: what rendering it adds to the conversation before it."""
        before, _ = self._render(messages[:index], add_generation_prompt=True)
        after, _ = self._render(messages[: index + 1])
        if not (text.startswith(after) and after.startswith(before)):
            raise _UnstableTemplateError
        return len(before), len(after)

    def _render(self, messages: list[dict[str, Any]], **options: Any) -> tuple[str, list[Span]]:
        # Not with the tokenizer's `apply_chat_template`: it does not return the spans, and its mask loses some tokens.
        texts, spans = render_jinja_template(
            [messages], chat_template=self.template, **options, **self._tokenizer.special_tokens_map
        )
        return texts[0], _join_touching(spans[0]) if spans else []

    def _find_end_of_turn(self) -> int:
        try:
            chat = self._render_with_spans([{"role": "user", "content": "a"}, {"role": ASSISTANT, "content": "b"}])
        except _UnstableTemplateError:
            raise ConfigurationError(
                f"{self._field}: the chat template writes a question differently once the answer follows: put the assistant's "
                "words between {% generation %} and {% endgeneration %}"
            ) from None
        except Exception as error:
            raise ConfigurationError(
                f"{self._field}: the chat template fails on a question and its answer ({_first_line(error)}): correct it"
            ) from error
        [(tokens, mask)] = self.tokenize([chat])
        visible = [int(token) for token in tokens[mask == 1] if self._tokenizer.decode([token]).strip()]
        special = {*self._tokenizer.all_special_ids, *self._tokenizer.get_added_vocab().values()}
        if not visible or visible[-1] not in special:
            raise ConfigurationError(
                f"{self._field}: the chat template ends what the assistant says with no special token, so the model could not "
                "learn to stop: end it with {{ eos_token }}"
            )
        return visible[-1]


class _UnstableTemplateError(Exception):
    """A template rendered the start of a conversation differently when more messages followed."""


def masked_labels(sample: Sample) -> Tokens:
    """The labels of a sample, [tokens] int64, -100 where the loss mask is 0."""
    labels: Tokens = np.where(sample[LOSS_MASK] == 1, sample[TOKENS].astype(np.int64), IGNORE_INDEX)
    return labels


def _join_touching(spans: Sequence[Span]) -> list[Span]:
    """Join spans that touch: some templates mark the end of a turn separately from its words."""
    joined: list[Span] = []
    for begin, end in spans:
        if joined and joined[-1][1] == begin:
            begin, _ = joined.pop()
        joined.append((begin, end))
    return joined


def _training_template(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """The template with the assistant's words marked, where trl has such a variant of it; it renders the same text."""
    if has_generation_markers(template):
        return template
    try:
        return get_training_chat_template(tokenizer) or template
    except ValueError:  # trl does not know the template
        return template


def _first_line(error: Exception) -> str:
    return first_line(error) or type(error).__name__
