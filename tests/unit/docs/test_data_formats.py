"""Every sample of docs/guides/data-formats.md is read as the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from tests.support.reading import resolve

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/guides/data-formats.md"
SAMPLES = ROOT / "tests/data/formats"
TABLE_ROW = re.compile(r"\| (?P<name>[^|]+) \| (?P<objective>\w+) \| `(?P<entry>\{source: [^|]+\})` \| `(?P<first>[^|]+)` \|")


class Sample(NamedTuple):
    """A row of the page's table."""

    objective: str
    entry: dict[str, Any]
    first: dict[str, Any]
    """Values of the first row by role."""


def samples() -> dict[str, Sample]:
    """The rows of the table by the entry in the document."""
    found = {}
    for match in TABLE_ROW.finditer(PAGE.read_text()):
        found[match["entry"]] = Sample(match["objective"], yaml.safe_load(match["entry"]), json.loads(match["first"]))
    return found


@pytest.mark.parametrize("entry", samples())
def test_reads_the_sample(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sample = samples()[entry]
    first = next(resolve(objective=sample.objective, **sample.entry).rows())
    assert {role: first.values[role] for role in sample.first} == sample.first


def test_every_sample_is_on_the_page() -> None:
    named = {sample.entry["source"].removeprefix("file://tests/data/formats/") for sample in samples().values()}
    assert named == {path.name for path in SAMPLES.iterdir()}
