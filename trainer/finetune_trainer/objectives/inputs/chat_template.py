"""Renders conversations with a tokenizer's chat template."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template, render_jinja_template
from trl.chat_template_utils import get_training_chat_template, has_generation_markers

from finetune_trainer.config.objectives.chat import ChatObjectiveConfig
from finetune_trainer.objectives.base import ObjectiveContext
from finetune_trainer.objectives.inputs.tokenization import Span

Messages = Sequence[Mapping[str, Any]]

DEFAULT_TEMPLATE = (
    "{% if tools %}{{ 'tools\n' }}{% for tool in tools %}{{ tool | tojson + '\n' }}{% endfor %}"
    "{{ eos_token + '\n' }}{% endif %}"
    "{% for message in messages %}{{ message.role + '\n' }}"
    "{% if message.reasoning_content %}{{ '<think>\n' + message.reasoning_content + '\n</think>\n\n' }}{% endif %}"
    "{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}{{ '\n' if message.content or not loop.first else '' }}"
    "{{ '<tool_call>\n' + (call.function | tojson) + '\n</tool_call>' }}{% endfor %}"
    "{{ eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant\n' }}{% endif %}"
)
"""For models from scratch, whose tokenizer has no template. It is ChatML with the end-of-text token for both of ChatML's marks:
every tokenizer here has this token and needs no other, and generation stops at it anyway. Reasoning and tool calls are written
as Qwen 3 writes them."""

TODAY = datetime.date(2024, 7, 26)
"""The date for templates that write the current one, as Llama 3.2's does: that of Llama 3.1's template. With the real date, the
same document would give other tokens tomorrow, or on another node."""


class Dialect(NamedTuple):
    """How tool calls are handed to a template; templates disagree."""

    blank_content: str | None = ""
    """The content of a message that only calls tools."""
    arguments_as_json: bool = False
    """Whether arguments are a string instead of an object."""

    def write(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message in normal form as a template reads it, without keys that are absent or only of interest to training."""
        written = {key: value for key, value in message.items() if value is not None and key != "weight"}
        if "reasoning_content" in written:
            written.setdefault("content", "")
        if "tool_calls" in written:
            written.setdefault("content", self.blank_content)
            if self.arguments_as_json:
                written["tool_calls"] = [_with_json_arguments(call) for call in written["tool_calls"]]
        return written


DIALECTS = (Dialect(), Dialect(None), Dialect("", True), Dialect(None, True))


class RenderedText(NamedTuple):
    """A conversation as text, and the spans that the template marks as the assistant's."""

    text: str
    marked: list[Span]


class ChatTemplate:
    """A chat template with the special tokens that it writes."""

    def __init__(self, source: str, special_tokens: Mapping[str, Any]) -> None:
        self.source = source
        self.has_markers = has_generation_markers(source)
        """Whether it puts the assistant's words between generation markers."""
        self._special_tokens = special_tokens
        self._header = ""

    def exclude_header(self) -> None:
        """Do not count the prompt for an answer as the answer's: some of trl's templates mark a part of it."""
        question = {"role": "user", "content": "a"}
        prompt = self.render([question], prompt=True).text
        text, marked = self.render([question, {"role": "assistant", "content": "b"}])
        written = os.path.commonprefix([prompt, text])  # noqa: RUF071  # character by character, as it should
        self._header = written[marked[0][0] :] if marked else ""

    def render(
        self, messages: Messages, tools: Sequence[Mapping[str, Any]] = (), dialect: Dialect = DIALECTS[0], *,
        prompt: bool = False,
    ) -> RenderedText:  # fmt: skip
        """Render messages in normal form; `prompt` adds the start of the assistant's next turn.

        Raises whatever the template raises: it is a program.
        """
        # Not an argument: transformers makes strings of arguments that are functions.
        _compile_jinja_template(self.source).globals["strftime_now"] = TODAY.strftime
        # Not with the tokenizer's `apply_chat_template`: it does not return the spans, and its mask loses some tokens.
        texts, spans = render_jinja_template(
            [[dialect.write(message) for message in messages]], tools=list(tools) or None, chat_template=self.source,
            return_assistant_tokens_mask=self.has_markers, add_generation_prompt=prompt,
            **self._special_tokens,
        )  # fmt: skip
        text: str = texts[0]
        marked = _join_touching(spans[0]) if self.has_markers else []
        return RenderedText(text, [self._without_header(span, text) for span in marked])

    def _without_header(self, span: Span, text: str) -> Span:
        start, end = span
        return (start + len(self._header), end) if text.startswith(self._header, start, end) else span


def set_chat_template(config: ChatObjectiveConfig, context: ObjectiveContext, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Give the tokenizer, which is exported with the model, the document's template, or the default for models from scratch.

    Returns the template that it has then, None for none.
    """
    if config.chat_template:
        tokenizer.chat_template = config.chat_template
    elif not tokenizer.chat_template and context.from_scratch:
        tokenizer.chat_template = DEFAULT_TEMPLATE
    return tokenizer.get_chat_template() if tokenizer.chat_template else None


def training_template(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """The template with the assistant's words marked, where trl has such a variant of it."""
    if has_generation_markers(template):
        return template
    try:
        return get_training_chat_template(tokenizer) or template
    except ValueError:  # trl does not know the template
        return template


def _with_json_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}


def _join_touching(spans: Sequence[Span]) -> list[Span]:
    """Join spans that touch: some templates mark the end of a turn separately from its words."""
    joined: list[Span] = []
    for begin, end in spans:
        if joined and joined[-1][1] == begin:
            begin, _ = joined.pop()
        joined.append((begin, end))
    return joined
