"""Turns the records of a source into rows: chooses the columns that the objective reads, and validates their values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetune_trainer.data.conversations.reader import ConversationReader
from finetune_trainer.data.records.columns import Selection, columns_of, list_names
from finetune_trainer.data.records.record import Record
from finetune_trainer.data.records.row import Row, make_row
from finetune_trainer.data.sources.base import RecordSource, SourceDescription
from finetune_trainer.protocol import heartbeat


@dataclass(frozen=True)
class RowSource:
    """The rows of one `config.DatasetConfig`."""

    source: RecordSource
    columns: Mapping[str, str]
    """The column of each role."""
    task: str | None = None
    conversations: ConversationReader | None = None
    """Reads the rows of an objective over conversations, whose columns depend on their shape."""

    @property
    def identity(self) -> Any:
        conversations = self.conversations and self.conversations.identity
        return [self.source.identity, dict(self.columns), self.task, conversations]

    def contents(self, digest: Callable[[Path], str]) -> list[tuple[str, str]]:
        return self.source.contents(digest)

    def rows(self) -> Iterator[Row]:
        if self.conversations:
            yield from self.conversations.rows(self._records())
            return
        has_images = "image" in self.columns
        for record in self._records():
            row = make_row(record.values, self.columns, record.origin)
            yield row._replace(task=self.task, folder=record.folder if has_images else None)

    def _records(self) -> Iterator[Record]:
        for record in self.source.records():
            heartbeat.beat()
            yield record

    def describe(self) -> SourceDescription:
        description = self.source.describe()
        if self.conversations is None:
            return replace(description, columns=self.columns)
        first = next(self.source.records(), None)
        if first is None:
            return description
        shape = self.conversations.find_shape(first)
        columns = shape.columns(Selection(first.values))
        read = {name for column in columns.values() for name in columns_of(column, first.values)}
        unread = [name for name in first.values if name not in read]
        notes = (*description.notes, f"the columns {list_names(unread)} are not read") if unread else description.notes
        return replace(description, conversation=shape.preset, columns=columns, notes=notes)
