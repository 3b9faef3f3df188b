"""The first rows of a source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.data.records.row import Row
from finetune_trainer.data.sources.base import SourceDescription
from finetune_trainer.data.sources.sampling import IMAGE_SIZE, FirstRows, SampleLimit, first_rows


@dataclass
class Counted:
    """A source of rows that counts how many were read."""

    values: dict[str, str]
    count: int
    read: int = 0
    identity: Any = "counted"

    def contents(self, digest: Callable[[Path], str]) -> list[tuple[str, str]]:
        return []

    def rows(self) -> Iterator[Row]:
        for number in range(self.count):
            self.read += 1
            yield Row(self.values, f"rows:{number + 1}", {})

    def describe(self) -> SourceDescription:
        return SourceDescription("rows", "Test", 1)


@pytest.mark.parametrize(
    ("values", "limit", "kept"),
    [
        ({"text": "a"}, SampleLimit(10), 10),
        ({"text": "a" * 100}, SampleLimit(10, size=300), 3),
        ({"text": "a" * 1000}, SampleLimit(10, size=300), 1),
        ({"image": "a.png"}, SampleLimit(10, size=4 * IMAGE_SIZE), 4),
    ],
    ids=["rows", "characters", "one at least", "images"],
)
def test_ends_at_the_first_limit(values: dict[str, str], limit: SampleLimit, kept: int) -> None:
    source = Counted(values, 1000)
    sampled = first_rows(source, limit)
    assert isinstance(sampled, FirstRows)
    assert source.read == kept + 1, "one more row tells that there are more"
    assert [row.origin for row in sampled.rows()] == [f"rows:{number + 1}" for number in range(kept)]
    assert sampled.identity != source.identity


def test_a_source_without_more_rows_is_itself() -> None:
    source = Counted({"text": "a"}, 10)
    assert first_rows(source, SampleLimit(10)) is source
