"""Plain text by file, paragraph and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.reading import read_texts, resolve, write

TEXT = "\n\nOne line,\nand another.\r\n \r\nSecond.\n\n\n\nThird."


@pytest.mark.parametrize(
    ("rows_are", "rows"),
    [
        ("File", [(TEXT, "book.txt")]),
        (
            "Paragraph",
            [("One line,\nand another.", "book.txt:3"), ("Second.", "book.txt:6"), ("Third.", "book.txt:10")],
        ),
        (
            "Line",
            [("One line,", "book.txt:3"), ("and another.", "book.txt:4"), ("Second.", "book.txt:6"), ("Third.", "book.txt:10")],
        ),
    ],
)
def test_divides_a_file_into_rows(
    rows_are: str, rows: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write("book.txt", TEXT)
    assert read_texts("book.txt", text={"rowsAre": rows_are}) == rows


def test_notes_a_text_that_looks_like_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("a.txt", '{"text": "a"}\n')
    assert resolve("a.txt").describe().notes == ("The text looks like JSON: set format if its objects are rows.",)
    write("b.txt", "plain")
    assert resolve("b.txt").describe().notes == ()
