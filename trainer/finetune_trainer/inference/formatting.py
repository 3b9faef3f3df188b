"""Formats inputs and answers for one line of output."""

from __future__ import annotations

import json
from typing import Any

MAX_ENTRIES = 5  # labels of a text, tokens for a mask
MAX_INPUT_CHARACTERS = 60
NAME_KEYS = ("entity_group", "label", "token_str", "answer")


def format_answer(answer: Any) -> str:
    """A pipeline's answer on one line; lists of numbers are shown by their shape."""
    if isinstance(answer, list) and answer and all(isinstance(entry, dict) for entry in answer):
        return ", ".join(_format_entry(entry) for entry in answer[:MAX_ENTRIES])
    if isinstance(answer, dict):
        return _format_entry(answer)
    shape: list[str] = []
    inner = answer
    while isinstance(inner, list) and inner:
        shape.append(str(len(inner)))
        inner = inner[0]
    return f"{' x '.join(shape)} numbers" if shape else str(answer)


def _format_entry(entry: dict[str, Any]) -> str:
    if "generated_text" in entry:
        text = entry["generated_text"]
        return str(text[-1]["content"] if isinstance(text, list) else text)
    names = [entry[key] for key in NAME_KEYS if key in entry]
    if not names:
        return json.dumps(entry, ensure_ascii=False, default=to_json_value)
    words = ["no answer" if names[0] == "" else str(names[0])]
    if "word" in entry:
        words.append(repr(entry["word"]))
    if "score" in entry:
        words.append(f"{entry['score']:.3f}")
    return " ".join(words)


def shorten(value: Any) -> str:
    """An input, shortened to fit into a sentence."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_INPUT_CHARACTERS else f"{text[: MAX_INPUT_CHARACTERS - 3]}..."


def to_json_value(value: Any) -> Any:
    """A value that json cannot encode, such as a NumPy array, as one that it can."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
