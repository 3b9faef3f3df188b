"""Column roles: for each role, how a value is validated, which texts it holds, and how these texts are rewritten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from finetune_trainer.data.records.answers import parse_answers

TEXT_KEYS = ("content", "reasoning_content")  # the keys of a message that hold its texts, besides its tool calls
SPEAKERS = ("system", "developer", "user", "assistant", "tool")  # the roles of a conversation's messages

Rewrite = Callable[[str], str]


def _no_texts(value: Any) -> Iterable[str]:
    return ()


class Role(NamedTuple):
    """What an objective expects in a column."""

    validate: Callable[[Any], str | None]
    """Returns what is wrong with a value and how to correct it, or None for a valid value."""
    texts: Callable[[Any], Iterable[str]] = _no_texts
    """The texts in a valid value. Tokenizers are trained on them and the data checks read them."""
    rewrite: Callable[[Any, Rewrite], Any] | None = None
    """Returns the value with each of its texts rewritten; None where that would invalidate the row, for example where another
    column counts characters."""


def type_name(value: Any) -> str:
    """The type of a value, for error messages."""
    return "null" if value is None else f"a {type(value).__name__}"


def _validate_text(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"is {type_name(value)}, not a string: correct or remove the row"
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return f"holds half of a surrogate pair at character {error.start + 1}: correct the row"
    return None


def _text(value: Any) -> Iterable[str]:
    return (value,)


def _rewrite_text(value: Any, rewrite: Rewrite) -> Any:
    return rewrite(value)


def _validate_optional_text(value: Any) -> str | None:
    return None if value is None else _validate_text(value)


def _optional_text(value: Any) -> Iterable[str]:
    return (value,) if value else ()


def _rewrite_optional_text(value: Any, rewrite: Rewrite) -> Any:
    return rewrite(value) if value else value


def _validate_conversation(value: Any) -> str | None:
    if not isinstance(value, list):
        return f"is {type_name(value)}, not a list of messages: correct the row"
    for number, message in enumerate(value, start=1):
        if problem := _validate_message(message):
            return f"has in message {number} {problem}"
    return None if value else "is a list without messages: correct or remove the row"


def _validate_message(message: Any) -> str | None:
    if not isinstance(message, dict):
        return f"a {type(message).__name__}, not an object with role and content: correct the row"
    role, content = message.get("role"), message.get("content")
    if role not in SPEAKERS:
        problem = "no role" if role is None else f"the unknown role {role!r}"
        return f"{problem}: write one of {', '.join(SPEAKERS)}"
    if content is None:
        has_other = message.get("tool_calls") or message.get("reasoning_content")
        return None if has_other else "no content: add it, or remove the row"
    content_problem = _validate_text(content)
    return content_problem and f"a content that {content_problem}"


def _validate_text_or_conversation(value: Any) -> str | None:
    return _validate_conversation(value) if isinstance(value, list) else _validate_text(value)


def _conversation_texts(value: Any) -> Iterator[str]:
    messages = value if isinstance(value, list) else [{"content": value}]
    for message in messages:
        for key in TEXT_KEYS:
            if message.get(key):
                yield message[key]
        for call in message.get("tool_calls") or ():
            yield from _strings(call["function"]["arguments"])


def _strings(value: Any) -> Iterator[str]:
    """The strings in a value, without keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _rewrite_call(call: dict[str, Any], rewrite: Rewrite) -> dict[str, Any]:
    """The tool call with its arguments rewritten; another name would be another tool."""
    function = call["function"]
    return call | {"function": function | {"arguments": _rewrite_strings(function["arguments"], rewrite)}}


def _rewrite_strings(value: Any, rewrite: Rewrite) -> Any:
    if isinstance(value, str):
        return rewrite(value)
    if isinstance(value, dict):
        return {key: _rewrite_strings(item, rewrite) for key, item in value.items()}
    if isinstance(value, list):
        return [_rewrite_strings(item, rewrite) for item in value]
    return value


def _rewrite_conversation(value: Any, rewrite: Rewrite) -> Any:
    if not isinstance(value, list):
        return rewrite(value)
    messages = []
    for message in value:
        for key in TEXT_KEYS:
            if message.get(key):
                message = message | {key: rewrite(message[key])}
        if message.get("tool_calls"):
            message = message | {"tool_calls": [_rewrite_call(call, rewrite) for call in message["tool_calls"]]}
        messages.append(message)
    return messages


def _validate_tools(value: Any) -> str | None:
    return None if isinstance(value, list) else f"is {type_name(value)}, not a list of tools: correct the row"


def _validate_template_options(value: Any) -> str | None:
    return None if isinstance(value, dict) else f"is {type_name(value)}, not an object of options: correct the row"


def _validate_label(value: Any) -> str | None:
    if isinstance(value, dict | bytes):
        kind = "an object" if isinstance(value, dict) else "bytes"
        return f"is {kind}, not a label, a list of labels or a number: correct the row"
    return None


def _validate_words(value: Any) -> str | None:
    if not isinstance(value, list):
        return f"{_not_a_list(value)} of words: correct the row"
    for number, word in enumerate(value, start=1):
        if problem := _validate_text(word):
            return f"is a list whose item {number} {problem}"
    return None


def _words_as_text(value: Any) -> Iterable[str]:
    return (" ".join(value),)


def _validate_tags(value: Any) -> str | None:
    if not isinstance(value, list):
        return f"{_not_a_list(value)} of labels: correct the row"
    for number, tag in enumerate(value, start=1):
        if not isinstance(tag, str | int):
            return f"is a list whose item {number} is {tag!r}, neither a label nor a label's number: correct the row"
    return None


def _not_a_list(value: Any) -> str:
    if isinstance(value, str):
        return "is a string (CSV holds nothing else: write JSONLines or Parquet), not a list"
    return f"is {type_name(value)}, not a list"


def _validate_answers(value: Any) -> str | None:
    try:
        parse_answers(value)
    except ValueError as error:
        return str(error)
    return None


def _validate_image_value(value: Any) -> str | None:
    content = (value.get("bytes") or value.get("path")) if isinstance(value, dict) else value
    if isinstance(content, str | bytes) and content:
        return None
    kind = "empty" if value is not None and content in ("", b"", None) else type_name(value)
    return f"is {kind}, not an image: give a path, base64 or bytes, or remove the row"


PLAIN_TEXT = Role(_validate_text, _text, _rewrite_text)
TEXT_OR_CONVERSATION = Role(_validate_text_or_conversation, _conversation_texts, _rewrite_conversation)
ROLES: dict[str, Role] = {
    "text": PLAIN_TEXT,
    "text_pair": PLAIN_TEXT,
    "negative": Role(_validate_optional_text, _optional_text, _rewrite_optional_text),
    "messages": Role(_validate_conversation, _conversation_texts, _rewrite_conversation),
    "prompt": TEXT_OR_CONVERSATION,
    "completion": TEXT_OR_CONVERSATION,
    "tools": Role(_validate_tools),
    "template_options": Role(_validate_template_options),
    "chosen": TEXT_OR_CONVERSATION,
    "rejected": TEXT_OR_CONVERSATION,
    "label": Role(_validate_label),
    "tokens": Role(_validate_words, _words_as_text),
    "tags": Role(_validate_tags),
    "context": Role(_validate_text, _text),
    "question": PLAIN_TEXT,
    "answers": Role(_validate_answers),
    "image": Role(_validate_image_value),
    "target": PLAIN_TEXT,
}
"""The roles of rows by their fields of `config.ColumnsConfig`.

That has none for the options of a chat template, and one more for a system message, which becomes a part of its conversation.
"""
