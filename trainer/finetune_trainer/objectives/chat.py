"""Conversations as tokens, and which of these the assistant says: what a chat template, in Jinja, leaves to be found out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template
from trl.chat_template_utils import get_training_chat_template, has_generation_markers

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.objectives import field_of
from finetune_trainer.config.objectives.chat import ChatObjectiveConfig
from finetune_trainer.data.loading.collate import IGNORE_INDEX
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.tokenization import Span, require_offsets, tokenize_marked
from finetune_trainer.protocol.outcome import ConfigurationError

LEARNT = "learnt"  # of each token: 1 if it is to be learnt, 0 if it is only read
ASSISTANT = "assistant"
Messages = Sequence[Mapping[str, Any]]

DEFAULT_TEMPLATE = (
    "{% for message in messages %}{{ message.role + '\n' + message.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant\n' }}{% endif %}"
)
"""For models from scratch, whose tokenizer was never told of conversations. It is ChatML with the end-of-text token for both of
ChatML's marks: every tokenizer here has that one and needs no other, and it is where generation stops anyway."""


class Written(NamedTuple):
    """A conversation as text, and where in it the assistant speaks: once for each of its messages, its end of turn included."""

    text: str
    answers: list[Span]


def template(spec: TrainSpec, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The document's template, the tokenizer's own or the default for models from scratch; the tokenizer keeps it for export.

    None where there is none of them.
    """
    options = spec.objective.config
    assert isinstance(options, ChatObjectiveConfig)
    if options.chat_template:
        tokenizer.chat_template = options.chat_template
    elif not tokenizer.chat_template and spec.model.initialization == "Scratch":
        tokenizer.chat_template = DEFAULT_TEMPLATE
    return tokenizer.get_chat_template() if tokenizer.chat_template else None


class Chat:
    """A tokenizer with its chat template."""

    def __init__(self, spec: TrainSpec, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises ConfigurationError for a tokenizer without a template, and for one by which no model could learn to stop."""
        self._field = f"spec.objective.{field_of(spec.objective.type)}.chatTemplate"
        found = template(spec, tokenizer)
        if found is None:
            raise ConfigurationError(
                f"{self._field}: the tokenizer has no chat template: set the one that the model is to be used with"
            )
        require_offsets(tokenizer)
        self._tokenizer = tokenizer
        self.template = _for_training(tokenizer, found)
        self._marked = has_generation_markers(self.template)
        self.end = self._end_of_turn()
        """The token by which the assistant ends its turn."""

    def write(self, messages: Messages, record: Row, role: str, first: int = 0) -> Written:
        """The conversation by the template, with the assistant's words from the message `first` on.

        Raises DataError, about the record's value for `role`, where that fails.
        """
        said = [{key: value for key, value in message.items() if value is not None} for message in messages]
        try:
            return self._written(said, first)
        except _Unstable:
            raise record.error_for(
                role,
                "is a conversation that the chat template writes differently once more follows, so that the assistant's words "
                f"cannot be told: put them between {{% generation %}} and {{% endgeneration %}} in {self._field}",
            ) from None
        except Exception as error:  # a template is a program, and may raise whatever it likes
            raise record.error_for(role, f"does not suit the chat template ({_first_line(error)}): correct the row") from error

    def tokenize(self, conversations: Sequence[Written]) -> Iterator[tuple[Tokens, Tokens]]:
        """Of each conversation the tokens, and for each of them whether it is the assistant's: [tokens] int32 and int8."""
        texts, answers = zip(*conversations, strict=True)
        return tokenize_marked(texts, answers, self._tokenizer, add_special_tokens=False)

    def stop_generation(self, model: Any) -> None:
        """Has the model stop where the assistant ends its turn, also when it has been exported."""
        stops = model.generation_config.eos_token_id
        stops = [] if stops is None else [stops] if isinstance(stops, int) else list(stops)
        if self.end not in stops:
            model.generation_config.eos_token_id = [*stops, self.end]

    def _written(self, messages: list[dict[str, Any]], first: int = 0) -> Written:
        answers = _answers(messages)
        if self._marked:
            text, spans = self._render(messages, return_assistant_tokens_mask=True)
            earlier = [messages[: index + 1] for index in answers if index < first][-1:]
            before = [span for some in earlier for span in self._render(some, return_assistant_tokens_mask=True)[1]]
            return Written(text, spans[len(before) :])
        whole, _ = self._render(messages)
        return Written(whole, [self._span(messages, index, whole) for index in answers if index >= first])

    def _span(self, messages: list[dict[str, Any]], index: int, whole: str) -> Span:
        before, _ = self._render(messages[:index], add_generation_prompt=True)
        after, _ = self._render(messages[: index + 1])
        if not (whole.startswith(after) and after.startswith(before)):
            raise _Unstable
        return len(before), len(after)

    def _render(self, messages: list[dict[str, Any]], **settings: Any) -> tuple[str, list[Span]]:
        # Not by the tokenizer's `apply_chat_template`: it keeps the spans to itself, and loses those of some tokens.
        rendered, spans = render_jinja_template(
            [messages], chat_template=self.template, **settings, **self._tokenizer.special_tokens_map
        )
        return rendered[0], _joined(spans[0]) if spans else []

    def _end_of_turn(self) -> int:
        try:
            written = self._written([{"role": "user", "content": "a"}, {"role": ASSISTANT, "content": "b"}])
        except _Unstable:
            raise ConfigurationError(
                f"{self._field}: the chat template writes a question differently once the answer follows: put the assistant's "
                "words between {% generation %} and {% endgeneration %}"
            ) from None
        except Exception as error:
            raise ConfigurationError(
                f"{self._field}: the chat template fails on a question and its answer ({_first_line(error)}): correct it"
            ) from error
        [(tokens, learnt)] = self.tokenize([written])
        said = [int(token) for token in tokens[learnt == 1] if self._tokenizer.decode([token]).strip()]
        special = {*self._tokenizer.all_special_ids, *self._tokenizer.get_added_vocab().values()}
        if not said or said[-1] not in special:
            raise ConfigurationError(
                f"{self._field}: the chat template ends what the assistant says with no special token, so the model could not "
                "learn to stop: end it with {{ eos_token }}"
            )
        return said[-1]


class _Unstable(Exception):
    """A template wrote the beginning of a conversation differently when more followed."""


def labels(row: Sample) -> Tokens:
    """What is to be learnt of a row, [tokens] int64, -100 elsewhere."""
    found: Tokens = np.where(row[LEARNT] == 1, row[TOKENS].astype(np.int64), IGNORE_INDEX)
    return found


def _answers(messages: Messages) -> list[int]:
    return [index for index, message in enumerate(messages) if message["role"] == ASSISTANT]


def _joined(spans: Sequence[Span]) -> list[Span]:
    """Spans that touch are one: some templates mark the end of a turn apart from its words."""
    joined: list[Span] = []
    for begin, end in spans:
        if joined and joined[-1][1] == begin:
            begin, _ = joined.pop()
        joined.append((begin, end))
    return joined


def _for_training(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """The template with the assistant's words marked, where trl has such a variant of it; it writes the same conversations."""
    if has_generation_markers(template):
        return template
    try:
        return get_training_chat_template(tokenizer) or template
    except ValueError:  # not among those it knows
        return template


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
