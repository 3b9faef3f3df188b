"""Typed parts of a message's content: text, reasoning and tool calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from finetune_trainer.data.conversations.tools import parse_tool_calls

TEXT_TYPES = ("text", "input_text", "output_text")
REASONING_TYPES = ("reasoning", "thinking")
CALL_TYPES = ("tool_call", "tool_use", "function_call")
RESULT_TYPES = ("tool_result", "tool_response")
MEDIA_TYPES = ("image", "image_url", "input_image", "audio", "input_audio", "audio_url", "video", "video_url", "file")


class Content(NamedTuple):
    """What the parts of a content amount to."""

    text: str | None
    reasoning: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()


def parse_content(value: Any) -> Content:
    """The content of a message: a string, None, or a list of parts, whose texts are joined without anything between them.

    Raises ValueError with the problem and the remedy, for example for an image.
    """
    if value is None or isinstance(value, str):
        return Content(value)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        raise ValueError(f"a content that is a {type(value).__name__}, not a string: correct or remove the row")
    texts: list[str] = []
    reasoning: list[str] = []
    calls: list[dict[str, Any]] = []
    for number, part in enumerate(value, start=1):
        kind = _type_of(part, number)
        if kind in TEXT_TYPES:
            texts.append(_string(part, ("text",), number))
        elif kind in REASONING_TYPES:
            reasoning.append(_string(part, ("text", kind, "reasoning", "thinking", "content"), number))
        elif kind in CALL_TYPES:
            calls += parse_tool_calls(_call_of(part, kind))
        elif kind in RESULT_TYPES:
            texts.append(_result_text(part, number))
        else:
            raise ValueError(_unsupported(kind, number))
    is_call_only = calls and not texts
    return Content(None if is_call_only else "".join(texts), "\n".join(reasoning), tuple(calls))


def _type_of(part: Any, number: int) -> str:
    if isinstance(part, str):
        return "text"
    if not isinstance(part, Mapping):
        raise ValueError(f"a content whose part {number} is a {type(part).__name__}, not an object: correct the row")
    kind = part.get("type")
    if kind is None and isinstance(part.get("text"), str):
        return "text"
    if not isinstance(kind, str):
        raise ValueError(f"a content whose part {number} has no type (it has: {', '.join(part)}): correct the row")
    return kind


def _string(part: Any, keys: tuple[str, ...], number: int) -> str:
    if isinstance(part, str):
        return part
    for key in keys:
        if isinstance(part.get(key), str):
            return str(part[key])
    raise ValueError(f"a content whose part {number} has no {keys[0]}: correct the row")


def _call_of(part: Mapping[str, Any], kind: str) -> Any:
    if kind in part:
        return part[kind]
    if "input" in part:  # as Anthropic writes it
        return {"id": part.get("id"), "name": part.get("name"), "arguments": part["input"]}
    return part


def _result_text(part: Mapping[str, Any], number: int) -> str:
    result = part.get("content", part.get("text"))
    inner = parse_content(result)
    if inner.text is None or inner.tool_calls:
        raise ValueError(f"a content whose part {number} has no text: correct the row")
    return inner.text


def _unsupported(kind: str, number: int) -> str:
    if kind in MEDIA_TYPES:
        return (
            f"a content whose part {number} is of type {kind}, and conversations are trained on as text only: remove the "
            "row, or describe the part in words"
        )
    known = ", ".join((*TEXT_TYPES[:1], *REASONING_TYPES, *CALL_TYPES[:2], *RESULT_TYPES[:1]))
    return f"a content whose part {number} is of the unknown type {kind}: use one of {known}"
