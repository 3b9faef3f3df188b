"""Renders conversations with a tokenizer's chat template."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

from jinja2.meta import find_undeclared_variables
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template, render_jinja_template
from trl.chat_template_utils import get_training_chat_template, has_generation_markers

from finetune_trainer.config.objectives.chat import ChatObjectiveConfig
from finetune_trainer.objectives.base import ObjectiveContext
from finetune_trainer.objectives.inputs.tokenization import Span
from finetune_trainer.protocol.outcome import ConfigurationError

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

TOOLS_TEMPLATE = "tool_use"  # transformers' name of it
TODAY = datetime.date(2024, 7, 26)
"""The date for templates that write the current one, as Llama 3.2's does: that of Llama 3.1's template. With the real date, the
same document would give other tokens tomorrow, or on another node."""


class Dialect(NamedTuple):
    """How contents and tool calls are handed to a template; templates disagree."""

    blank_content: str | None = ""
    """The content of a message that only calls tools."""
    arguments_as_json: bool = False
    """Whether arguments are a string instead of an object."""
    content_in_parts: bool = False
    """Whether a content is a list of typed parts, for templates of models that also see images."""

    def write(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message in normal form as a template reads it, without keys that are absent or only of interest to training."""
        written = {key: value for key, value in message.items() if value is not None and key != "weight"}
        if "reasoning_content" in written:
            written.setdefault("content", "")
        if "tool_calls" in written:
            written.setdefault("content", self.blank_content)
            if self.arguments_as_json:
                written["tool_calls"] = [_with_json_arguments(call) for call in written["tool_calls"]]
        if self.content_in_parts and written.get("content"):
            written["content"] = [{"type": "text", "text": written["content"]}]
        return written


DIALECTS = (Dialect(), Dialect(None), Dialect("", True), Dialect(None, True), Dialect(content_in_parts=True))


class RenderedText(NamedTuple):
    """A conversation as text, and the spans that the template marks as the assistant's."""

    text: str
    marked: list[Span] | None
    """None for a template without generation markers."""


class ChatTemplate:
    """A chat template with the special tokens that it writes."""

    def __init__(self, source: str, special_tokens: Mapping[str, Any], source_with_tools: str | None = None) -> None:
        """`source_with_tools` is the template of conversations with tools, for tokenizers that have one of their own."""
        self.sources = (source, source_with_tools or source)
        self._special_tokens = special_tokens
        self._header = ""

    def exclude_header(self, dialect: Dialect) -> None:
        """Do not count the prompt for an answer as the answer's: some of trl's templates mark a part of it."""
        question = {"role": "user", "content": "a"}
        prompt = self.render([question], dialect=dialect, prompt=True).text
        text, marked = self.render([question, {"role": "assistant", "content": "b"}], dialect=dialect)
        written = os.path.commonprefix([prompt, text])  # noqa: RUF071  # character by character, as it should
        self._header = written[marked[0][0] :] if marked else ""

    def render(
        self, messages: Messages, tools: Sequence[Mapping[str, Any]] = (), options: Mapping[str, Any] | None = None,
        dialect: Dialect = DIALECTS[0], *, prompt: bool = False,
    ) -> RenderedText:  # fmt: skip
        """Render messages in normal form; `options` are further variables of the template, and `prompt` adds the start of the
        assistant's next turn.

        Raises whatever the template raises: it is a program.
        """
        source = self.sources[bool(tools)]
        has_markers = has_generation_markers(source)
        # Not an argument: transformers makes strings of arguments that are functions.
        _compile_jinja_template(source).globals["strftime_now"] = TODAY.strftime
        # Not with the tokenizer's `apply_chat_template`: it does not return the spans, and its mask loses some tokens.
        texts, spans = render_jinja_template(
            [[dialect.write(message) for message in messages]], tools=list(tools) or None, chat_template=source,
            return_assistant_tokens_mask=has_markers, add_generation_prompt=prompt,
            **self._special_tokens, **(options or {}),
        )  # fmt: skip
        text: str = texts[0]
        if not has_markers:
            return RenderedText(text, None)
        return RenderedText(text, [self._without_header(span, text) for span in _join_touching(spans[0])])

    def variables(self, tools: Sequence[Mapping[str, Any]] = ()) -> Set[str]:
        """The variables that the template reads."""
        compiled = _compile_jinja_template(self.sources[bool(tools)])
        return find_undeclared_variables(compiled.environment.parse(self.sources[bool(tools)]))

    def _without_header(self, span: Span, text: str) -> Span:
        start, end = span
        return (start + len(self._header), end) if text.startswith(self._header, start, end) else span


def set_chat_template(config: ChatObjectiveConfig, context: ObjectiveContext, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Give the tokenizer, which is exported with the model, the document's template, or the default for models from scratch.

    Returns the template that it has then, None for none. Raises ConfigurationError for several without a default.
    """
    if config.chat_template:
        tokenizer.chat_template = config.chat_template
    elif not tokenizer.chat_template and context.from_scratch:
        tokenizer.chat_template = DEFAULT_TEMPLATE
    if not tokenizer.chat_template:
        return None
    try:
        template: str = tokenizer.get_chat_template()
    except ValueError as error:
        raise ConfigurationError(
            f"spec.objective.{context.section}.chatTemplate: the tokenizer has several chat templates and none that is the "
            f"default ({', '.join(tokenizer.chat_template)}): set one of them"
        ) from error
    return template


def tools_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The tokenizer's template of conversations with tools, None if it is that of all conversations."""
    templates: dict[str, str] = tokenizer.chat_template if isinstance(tokenizer.chat_template, dict) else {}
    return templates.get(TOOLS_TEMPLATE)


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
