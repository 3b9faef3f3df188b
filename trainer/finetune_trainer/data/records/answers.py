"""Answers of question answering: texts and their offsets in the context, in either of two formats."""

from __future__ import annotations

from typing import Any, NamedTuple


class Answer(NamedTuple):
    """A span of a context; `start` is its first character, counted from 0."""

    text: str
    start: int


def parse_answers(value: Any) -> list[Answer]:
    """Parse SQuAD's {"text": [...], "answer_start": [...]} or a list of {"text": ..., "start" or "answer_start": ...}.

    An empty list means that the context does not answer the question (Rajpurkar et al. 2018, arXiv:1806.03822). Raises
    ValueError with the cause and the remedy.
    """
    match value:
        case {"text": list(texts), "answer_start": list(starts)}:
            if len(texts) != len(starts):
                raise ValueError(f"has {len(texts)} texts and {len(starts)} starts: correct the row")
            pairs = list(zip(texts, starts, strict=True))
        case list():
            pairs = [_text_and_start(item) for item in value]
        case _:
            kind = "null" if value is None else f"a {type(value).__name__}"
            raise ValueError(
                f'is {kind}, neither {{"text": [...], "answer_start": [...]}} nor a list of {{"text": ..., "start": ...}}: '
                "correct the row (CSV can hold neither)"
            )
    for number, (text, start) in enumerate(pairs, start=1):
        if not isinstance(text, str) or not isinstance(start, int) or isinstance(start, bool):
            raise ValueError(f"has an answer {number} without a text or the number of its first character: correct the row")
        if not text.strip():
            raise ValueError(f"has an answer {number} without words: remove it; a question without answers is unanswerable")
    return [Answer(*pair) for pair in pairs]


def _text_and_start(item: Any) -> tuple[Any, Any]:
    match item:
        case {"text": text, "start": start} | {"text": text, "answer_start": start}:
            return text, start
    return None, None
