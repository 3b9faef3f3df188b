"""Text of data, made safe and short enough to show."""

from __future__ import annotations

import pytest

from finetune_trainer.objectives.description import Block, Segment
from finetune_trainer.preview.printable import HEAD, TAIL, printable, shorten, visible_segments


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve 日本語 👩‍💻", "naïve 日本語 👩‍💻"),
        ("a\nb\tc\r", "a⏎\nb⇥\tc␍"),
        ("\x1b[31m\x00\x9b", "\\u001b[31m\\u0000\\u009b"),
        ("\u202eevil\u2028\ufeff", "\\u202eevil\\u2028\\ufeff"),
    ],
)
def test_control_characters_are_visible(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_the_middle_of_a_long_text_is_left_out() -> None:
    text = "a" * 1000 + "b" * 1000
    short = shorten(text)
    assert short.startswith("a" * HEAD + " […")
    assert short.endswith("…] " + "b" * TAIL)
    assert f"{2000 - HEAD - TAIL:,} characters" in short
    assert shorten("a" * HEAD) == "a" * HEAD


def test_segments_end_at_the_limit_with_a_note() -> None:
    block = Block(name="document", segments=[Segment(text="word", tokens=[1, 2])] * 10)
    texts = [segment.text for segment in visible_segments(block, 8)]
    assert texts == ["word", "word", " […16 tokens…]"]
