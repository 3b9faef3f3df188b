"""Finds the parts of a conversation that a chat template leaves out, by rendering one of the same form with known words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from finetune_trainer.objectives.inputs.chat_template import DIALECTS, ChatTemplate, Dialect, Messages

ASSISTANT = "assistant"
END_OF_THINKING = "</think>"
MAX_REMEMBERED_FORMS = 4096
PartKind = Literal["tools", "options", "content", "reasoning", "tool_calls", "name"]


class Conversation(NamedTuple):
    """Messages in normal form, and the tools that they may call."""

    messages: Messages
    tools: Sequence[Mapping[str, Any]] = ()
    options: Mapping[str, Any] = MappingProxyType({})
    """Further variables of the template."""

    def until(self, index: int) -> Conversation:
        """The conversation up to a message, with it."""
        return self._replace(messages=self.messages[: index + 1])


class Part(NamedTuple):
    """A part of a conversation that a template writes or does not."""

    kind: PartKind
    message: int
    """The index of the message, 0 for tools and options."""
    text: str


class Coverage(NamedTuple):
    """How a template writes conversations of one form."""

    dialect: Dialect
    missing: tuple[Part, ...]

    def lost(self, last: int) -> Part | None:
        """The first part that is lost: neither a name, nor reasoning before the message `last`, which templates may strip."""
        for part in self.missing:
            if part.kind != "name" and not (part.kind == "reasoning" and part.message < last):
                return part
        return None

    @property
    def stripped_reasoning(self) -> set[int]:
        """The messages whose reasoning the template strips."""
        return {part.message for part in self.missing if part.kind == "reasoning"}

    @property
    def drops_names(self) -> bool:
        """Whether the template does not write the names of speakers."""
        return any(part.kind == "name" for part in self.missing)


class CoverageFinder:
    """Finds how a template writes conversations, once for each form of them."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._known: dict[Any, Coverage] = {}

    def find(self, conversation: Conversation) -> Coverage:
        """How the template writes the conversation; raises what the template raises for it."""
        form = _form(conversation)
        if form not in self._known:
            if len(self._known) >= MAX_REMEMBERED_FORMS:
                self._known.clear()
            try:
                self._known[form] = self._search(_with_known_words(conversation))
            except Exception:  # a template may refuse the known words, and not the conversation's own
                return self._search(conversation)
        return self._known[form]

    def _search(self, conversation: Conversation) -> Coverage:
        """With the first dialect in which the template writes what dialects differ in, or else with the best one."""
        found: list[Coverage] = []
        errors: list[Exception] = []
        parts = list(_parts(conversation))
        unread = [Part("options", 0, name) for name in self._unread_options(conversation)]
        for dialect in DIALECTS:
            try:
                text = self._template.render(*conversation, dialect).text
            except Exception as error:  # a template is a program, and may raise anything
                errors.append(error)
                continue
            missing = (*unread, *(part for part in parts if not _is_written(part, text)))
            found.append(Coverage(dialect, missing))
            if not any(part.kind in ("content", "tool_calls") for part in missing):
                return found[-1]
        if not found:
            raise errors[0]
        return min(found, key=lambda coverage: len(coverage.missing))

    def _unread_options(self, conversation: Conversation) -> Iterator[str]:
        """Options with words or lists that the template does not mention; to ignore a switch is to leave it off."""
        for name, value in conversation.options.items():
            is_switch = value is None or isinstance(value, bool | int | float)
            if value and not is_switch and name not in self._template.variables(conversation.tools):
                yield name


def _form(conversation: Conversation) -> Any:
    """What the template's decisions depend on, other than the words."""
    forms = []
    for message in conversation.messages:
        calls = len(message.get("tool_calls") or ())
        others = tuple(sorted(key for key, value in message.items() if value is not None))
        forms.append((message["role"], _content_form(message), calls, others))
    return tuple(forms), bool(conversation.tools), json.dumps(dict(conversation.options), sort_keys=True, default=str)


def _content_form(message: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether the content has words, and whether it begins with the assistant's reasoning."""
    text = (message.get("content") or "").strip()
    return bool(text), message["role"] == ASSISTANT and END_OF_THINKING in text


def _with_known_words(conversation: Conversation) -> Conversation:
    """A conversation of the same form in which each part is a word that occurs nowhere else."""
    messages = [_with_known_words_in(message, index) for index, message in enumerate(conversation.messages)]
    if not conversation.tools:
        return conversation._replace(messages=messages)
    word = _word(0, "tool")
    parameters = {"type": "object", "properties": {_word(0, "key"): {"type": "string", "description": "a"}}, "required": []}
    tool = {"type": "function", "function": {"name": word, "description": "a", "parameters": parameters}}
    return conversation._replace(messages=messages, tools=[tool])


def _with_known_words_in(message: Mapping[str, Any], index: int) -> dict[str, Any]:
    known = dict(message)
    has_words, has_thinking = _content_form(message)
    if has_words:
        thinking = f"<think>\n{_word(index, 'thinking')}\n{END_OF_THINKING}\n\n" if has_thinking else ""
        known["content"] = thinking + _word(index, "content")
    if message.get("reasoning_content"):
        known["reasoning_content"] = _word(index, "reasoning")
    if message.get("tool_calls"):
        arguments = {_word(index, "key"): _word(index, "value")}
        known["tool_calls"] = [
            {**call, "function": {"name": _word(index, f"call{number}"), "arguments": arguments}}
            for number, call in enumerate(message["tool_calls"])
        ]
    if message.get("name") and message["role"] != "tool":
        known["name"] = _word(index, "name")
    return known


def _word(index: int, kind: str) -> str:
    return f"zq{index}{kind}"


def _parts(conversation: Conversation) -> Iterator[Part]:
    for tool in conversation.tools:
        yield Part("tools", 0, tool["function"]["name"])
    for index, message in enumerate(conversation.messages):
        text = message.get("content") or ""
        _, has_thinking = _content_form(message)
        if has_thinking:
            thinking, _, text = text.partition(END_OF_THINKING)
            yield Part("reasoning", index, thinking.split("<think>")[-1].strip())
        yield Part("content", index, text.strip())
        yield Part("reasoning", index, (message.get("reasoning_content") or "").strip())
        for call in message.get("tool_calls") or ():
            yield Part("tool_calls", index, call["function"]["name"])
            for argument in call["function"]["arguments"]:
                yield Part("tool_calls", index, argument)
        # The name of a tool repeats that of its call.
        yield Part("name", index, message.get("name") or "" if message["role"] != "tool" else "")


def _is_written(part: Part, text: str) -> bool:
    if part.text not in text:
        return False
    # Arguments must be JSON once: not Python's notation for an object, and not JSON in a JSON string.
    return part.kind != "tool_calls" or (f"'{part.text}'" not in text and f'\\"{part.text}\\"' not in text)
