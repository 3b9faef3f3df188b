"""Every sample of the pages about data formats and conversations is read as its page says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from tests.support.reading import resolve

ROOT = Path(__file__).parents[3]
PAGES = {"formats": "docs/guides/data-formats.md", "conversations": "docs/guides/conversations.md"}
"""The page of each folder of samples."""
TABLE_ROW = re.compile(r"\| (?P<name>[^|]+) \| (?P<objective>\w+) \| `(?P<entry>\{source: [^|]+\})` \| `(?P<first>[^|]+)` \|")


class Sample(NamedTuple):
    """A row of the page's table."""

    objective: str
    entry: dict[str, Any]
    first: dict[str, Any]
    """Values of the first row by role."""


def samples(*folders: str) -> dict[str, Sample]:
    """The rows of the tables by the entry in the document."""
    found = {}
    for folder in folders:
        for match in TABLE_ROW.finditer((ROOT / PAGES[folder]).read_text()):
            found[match["entry"]] = Sample(match["objective"], yaml.safe_load(match["entry"]), json.loads(match["first"]))
    return found


@pytest.mark.parametrize("entry", samples(*PAGES))
def test_reads_the_sample(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sample = samples(*PAGES)[entry]
    first = next(resolve(objective=sample.objective, **sample.entry).rows())
    assert {role: first.values[role] for role in sample.first} == sample.first


@pytest.mark.parametrize("folder", PAGES)
def test_every_sample_is_on_the_page(folder: str) -> None:
    named = {sample.entry["source"].removeprefix(f"file://tests/data/{folder}/") for sample in samples(folder).values()}
    assert named == {path.name for path in (ROOT / "tests/data" / folder).iterdir()}
