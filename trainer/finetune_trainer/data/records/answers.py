"""Answers as question answering writes them: texts and where they begin, in either of two shapes."""

from __future__ import annotations

from typing import Any, NamedTuple


class Answer(NamedTuple):
    """Words of a context; `start` counts its characters from 0."""

    text: str
    start: int


def parse_answers(value: Any) -> list[Answer]:
    """From SQuAD's {"text": [...], "answer_start": [...]} or a list of {"text": ..., "start" or "answer_start": ...}.

    None at all means that the context does not answer the question (Rajpurkar et al. 2018, arXiv:1806.03822). Raises
    ValueError with what is wrong.
    """
    match value:
        case {"text": list(texts), "answer_start": list(starts)}:
            if len(texts) != len(starts):
                raise ValueError(f"has {len(texts)} texts and {len(starts)} starts: correct the row")
            pairs = list(zip(texts, starts, strict=True))
        case list():
            pairs = [_pair(one) for one in value]
        case _:
            found = "null" if value is None else f"a {type(value).__name__}"
            raise ValueError(
                f'is {found}, neither {{"text": [...], "answer_start": [...]}} nor a list of {{"text": ..., "start": ...}}: '
                "correct the row (CSV can hold neither)"
            )
    for number, (text, start) in enumerate(pairs, start=1):
        if not isinstance(text, str) or not isinstance(start, int) or isinstance(start, bool):
            raise ValueError(f"has an answer {number} without a text or the number of its first character: correct the row")
        if not text.strip():
            raise ValueError(f"has an answer {number} of no words: leave it out; no answers at all mean that there is none")
    return [Answer(*pair) for pair in pairs]


def _pair(one: Any) -> tuple[Any, Any]:
    match one:
        case {"text": text, "start": start} | {"text": text, "answer_start": start}:
            return text, start
    return None, None
