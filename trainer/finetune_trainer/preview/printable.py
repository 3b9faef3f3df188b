"""Text of data made safe and short enough to show: data may contain control characters, and documents of any length."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from finetune_trainer.objectives.description import Block, Segment

SHOWN_CONTROLS = {"\n": "⏎\n", "\r": "␍", "\t": "⇥\t"}
HEAD, TAIL = 300, 150
"""The characters that are kept of the start and the end of a long segment."""
HIDDEN_CATEGORIES = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
JOINERS = "\u200c\u200d"
"""Format characters that letters and emoji need."""


def printable(text: str) -> str:
    """The text with its control and format characters visible: they could move the cursor, or hide or reorder text."""
    return "".join(map(_printable_character, text))


def _printable_character(character: str) -> str:
    if character in SHOWN_CONTROLS:
        return SHOWN_CONTROLS[character]
    if character not in JOINERS and unicodedata.category(character) in HIDDEN_CATEGORIES:
        return f"\\u{ord(character):04x}"
    return character


def shorten(text: str) -> str:
    """The text without the middle of a long one."""
    left_out = len(text) - HEAD - TAIL
    if left_out < HEAD:
        return text
    return f"{text[:HEAD]} […{left_out:,} characters…] {text[-TAIL:]}"


def visible_segments(block: Block, max_characters: int) -> Iterator[Segment]:
    """The segments with printable, shortened texts; those after `max_characters` are replaced by a note on their number."""
    remaining = max_characters
    for number, segment in enumerate(block.segments):
        if remaining <= 0:
            yield Segment(text=f" […{_count_tokens(block.segments[number:]):,} tokens…]")
            return
        text = printable(shorten(segment.text))
        target = None if segment.target is None else printable(shorten(segment.target))
        remaining -= len(text)
        yield segment.model_copy(update={"text": text, "target": target})


def _count_tokens(segments: Sequence[Segment]) -> int:
    return sum(len(segment.tokens) for segment in segments)
