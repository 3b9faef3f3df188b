"""The first rows of a source, for a look at data of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from finetune_trainer.data.records.row import Row, texts
from finetune_trainer.data.sources.base import Source, SourceDescription

IMAGE_SIZE = 40_000  # an image takes about as long to prepare as so many characters


class SampleLimit(NamedTuple):
    """Where a sample of a source ends: at whichever limit is reached first, and after one row at least."""

    rows: int
    size: int = 8_000_000
    """In characters; an image counts as `IMAGE_SIZE` of them."""


@dataclass(frozen=True)
class FirstRows:
    """The first rows of a source that has more, held in memory."""

    source: Source
    kept: Sequence[Row]

    @property
    def identity(self) -> Any:
        return [self.source.identity, "first", len(self.kept)]

    def contents(self, digest: Callable[[Path], str]) -> list[tuple[str, str]]:
        return self.source.contents(digest)

    def rows(self) -> Iterator[Row]:
        return iter(self.kept)

    def describe(self) -> SourceDescription:
        return self.source.describe()


def first_rows(source: Source, limit: SampleLimit) -> Source:
    """The first rows of the source within the limit; the source itself if these are all of its rows."""
    kept: list[Row] = []
    size = 0
    for row in source.rows():
        if len(kept) >= limit.rows or size >= limit.size:
            return FirstRows(source, kept)
        kept.append(row)
        size += sum(map(len, texts(row))) + IMAGE_SIZE * ("image" in row.values)
    return source
