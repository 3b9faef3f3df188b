"""Fenced blocks and pages of the documentation, for tests of what they claim."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = (*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md")
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block: its language, the title in its info string, its text and its line in the page."""

    language: str
    title: str | None
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page, in order."""
    content = page.read_text()
    for match in FENCE.finditer(content):
        title = re.search(r'title="([^"]+)"', match[2])
        yield Block(match[1], title[1] if title else None, match[3], content.count("\n", 0, match.start()) + 1)
