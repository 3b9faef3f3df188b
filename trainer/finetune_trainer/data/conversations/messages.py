"""One message of any usual shape in normal form."""

from __future__ import annotations

import contextlib
import json
import types
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any, NamedTuple

from finetune_trainer.data.conversations.content import Content, parse_content
from finetune_trainer.data.conversations.tools import parse_tool_calls
from finetune_trainer.data.records.roles import SPEAKERS, type_name

FUNCTION_CALL = "function_call"
ROLES: Mapping[str, str] = types.MappingProxyType(
    {
        "human": "user", "prompter": "user",
        "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant", "model": "assistant",
        "observation": "tool", "function": "tool", "ipython": "tool",
        "tool_response": "tool", "function_response": "tool", "tool_result": "tool",
        FUNCTION_CALL: FUNCTION_CALL, "tool_call": FUNCTION_CALL,
        **{speaker: speaker for speaker in SPEAKERS},
    }
)  # fmt: skip
"""The role of each usual name of a speaker."""
ROLE_KEYS = ("role", "from")
CONTENT_KEYS = ("content", "value", "text")
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
WEIGHT_KEYS = ("weight", "train", "training", "loss_weight")
MEDIA = ("image", "video", "audio")
MEDIA_KEYS = tuple(key for medium in MEDIA for key in (medium, f"{medium}s"))
"""Keys of messages, and columns next to them, that hold media instead of text."""
PARTIAL_WEIGHT_KEY = "train_detail"
Message = dict[str, Any]


class MessageKeys(NamedTuple):
    """The keys of a message that hold its speaker and its content."""

    role: str
    content: str


@dataclass(frozen=True)
class MessageParser:
    """Brings messages into normal form."""

    keys: MessageKeys
    roles: Mapping[str, str]
    """The role of each name of a speaker, from the document."""

    def parse_all(self, messages: Any) -> list[Message]:
        """The messages in normal form; raises ValueError with the problem and the remedy."""
        messages = as_messages(messages) or messages
        if not isinstance(messages, list):
            raise ValueError(f"is {type_name(messages)}, not a list of messages: correct the row")
        if not messages:
            raise ValueError("is a list without messages: correct or remove the row")
        parsed = []
        for number, message in enumerate(messages, start=1):
            try:
                parsed.append(self.parse(message))
            except ValueError as error:
                raise ValueError(f"has in message {number} {error}") from error
        return parsed

    def parse(self, message: Any) -> Message:
        """One message in normal form; raises ValueError, whose text follows "has"."""
        if not isinstance(message, Mapping):
            raise ValueError(
                f"a {type(message).__name__}, not an object with {self.keys.role} and {self.keys.content}: correct it"
            )
        present = {key: value for key, value in message.items() if value is not None}
        role = self._role(present.pop(self.keys.role, None), present)
        raw = present.pop(self.keys.content, None)
        _require_no_media(present)
        weight = _pop_weight(present, role)
        legacy_call = present.pop("function_call", None)
        calls = parse_tool_calls(present.pop("tool_calls", None)) or parse_tool_calls(legacy_call)
        if role == FUNCTION_CALL:
            role = "assistant"
            calls, raw = _parse_function_call(raw), None
        content = parse_content(_as_text(raw) if role == "tool" else raw)
        calls = [*calls, *content.tool_calls]
        reasoning = _pop_reasoning(present) or content.reasoning
        if calls and role != "assistant":
            raise ValueError(f"tool calls of the {role}: only the assistant calls tools; correct the row")
        if content.text is None and not calls and not reasoning:
            raise ValueError(f"no {self.keys.content}: add it, or remove the row")
        normal: Message = {"role": role, "content": _content_text(content, has_calls=bool(calls))}
        if reasoning:
            normal["reasoning_content"] = reasoning
        if calls:
            normal["tool_calls"] = calls
        if weight is not None:
            normal["weight"] = weight
        return present | normal

    def _role(self, name: Any, present: Mapping[str, Any]) -> str:
        if name is None:
            raise ValueError(f"no {self.keys.role} (it has: {', '.join(present) or 'nothing'}): correct the row")
        speaker = str(name).strip()
        role = self.roles.get(speaker) or self.roles.get(speaker.lower()) or ROLES.get(speaker.lower())
        if role is None:
            raise ValueError(
                f"the unknown role {name!r}: write one of {', '.join(SPEAKERS)}, or give its role in conversation.roles"
            )
        return role


def _require_no_media(message: Mapping[str, Any]) -> None:
    for key in MEDIA_KEYS:
        if message.get(key):
            raise ValueError(f"{key}, and conversations are trained on as text only: remove the row, or the key")


def _as_text(result: Any) -> Any:
    """A tool's result as a text: JSON, unless it is a text or consists of typed parts."""
    if result is None or isinstance(result, str):
        return result
    if isinstance(result, list) and result and all(isinstance(part, Mapping) and "type" in part for part in result):
        return result
    return json.dumps(result, ensure_ascii=False)


def _content_text(content: Content, *, has_calls: bool) -> str | None:
    """Blank content next to tool calls counts as none: some templates write calls only where there is no content."""
    if has_calls and not (content.text or "").strip():
        return None
    return content.text or ""


def _parse_function_call(raw: Any) -> list[dict[str, Any]]:
    calls = parse_tool_calls(raw)
    if not calls:
        raise ValueError("a function call without content: correct the row")
    return calls


def _pop_reasoning(present: dict[str, Any]) -> str:
    """The reasoning of a message, which is then not among its other keys."""
    found = ""
    for key in REASONING_KEYS:
        value = present.pop(key, "")
        if not isinstance(value, str):
            raise ValueError(f"a {key} that is a {type(value).__name__}, not a string: correct the row")
        found = found or value
    return found


def _pop_weight(present: dict[str, Any], role: str) -> int | None:
    """The weight of a message, 0 or 1, or None; it is then not among the message's other keys."""
    if PARTIAL_WEIGHT_KEY in present:
        raise ValueError(f"a {PARTIAL_WEIGHT_KEY}: parts of a message cannot be masked; remove it, or set train: false")
    weight: int | None = None
    for key in WEIGHT_KEYS:
        value = present.pop(key, None)
        if value is None:
            continue
        if value not in (0, 1):
            raise ValueError(f"the {key} {value!r}: only 0 (not learned) and 1 (learned) are supported; correct the row")
        weight = int(value)
        if weight and role not in ("assistant", FUNCTION_CALL):
            raise ValueError(
                f"the {key} {value!r}, and only what the assistant says is learned: remove it, or set it to 0, in messages of "
                f"the {role}"
            )
    return weight


def as_messages(value: Any) -> list[Any] | None:
    """The messages of a value; None for a value that holds none.

    It is a list of objects, one object, an object of lists as older hub datasets have it, JSON of a list, or a list of texts
    that the user and the assistant say in turn.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(json.JSONDecodeError):
            value = json.loads(value)
    if isinstance(value, Mapping):
        return _transpose(value) or [value]
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(item, str) for item in value):
        return [{"role": role, "content": text} for role, text in zip(cycle(("user", "assistant")), value, strict=False)]
    if all(isinstance(item, Mapping) and item.keys() >= {"input", "output"} for item in value):
        return [message for item in value for message in _as_turn(item)]
    return value if isinstance(value[0], Mapping) else None


def _transpose(value: Mapping[str, Any]) -> list[Any]:
    """The messages of an object that has a list for each of their keys, all equally long; none for another object."""
    lengths = {len(item) if isinstance(item, list) else -1 for item in value.values()}
    if len(lengths) != 1 or -1 in lengths:
        return []
    return [dict(zip(value, items, strict=True)) for items in zip(*value.values(), strict=True)]


def _as_turn(pair: Mapping[str, Any]) -> list[Message]:
    return [{"role": "user", "content": pair["input"]}, {"role": "assistant", "content": pair["output"]}]


def find_keys(message: Any) -> MessageKeys | None:
    """The keys of a message that hold its speaker and its content, None if they are not usual ones."""
    if not isinstance(message, Mapping):
        return None
    role = next((key for key in ROLE_KEYS if key in message), None)
    content = next((key for key in CONTENT_KEYS if key in message), None)
    if role is None:
        return None
    if content is None:
        content = "value" if role == "from" else "content"
    return MessageKeys(role, content)
