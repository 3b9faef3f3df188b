"""Records that hold conversations become rows in normal form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_trainer.data.conversations.messages import MEDIA_KEYS
from finetune_trainer.data.conversations.normalize import NormalizationError, normalize_conversation
from finetune_trainer.data.conversations.pairs import normalize_pair
from finetune_trainer.data.conversations.shapes import Shape, ShapeFinder
from finetune_trainer.data.records.columns import ColumnError, Selection, list_names, select
from finetune_trainer.data.records.record import Record
from finetune_trainer.data.records.row import Row, texts, validate_row
from finetune_trainer.protocol.outcome import DataError


@dataclass(frozen=True)
class ConversationReader:
    """Reads the conversations of one source, all of which have the shape of its first record."""

    finder: ShapeFinder

    @property
    def identity(self) -> Any:
        """A JSON value that changes when rows may be read otherwise."""
        return [self.finder.columns.document(), self.finder.conversation.document(), self.finder.answers]

    def rows(self, records: Iterable[Record]) -> Iterator[Row]:
        """The rows of the records; raises DataError for one that does not fit the shape of the first."""
        shape: Shape | None = None
        for record in records:
            shape = shape or self.find_shape(record)
            yield self._read(record, shape)

    def find_shape(self, record: Record) -> Shape:
        """The shape of a record; raises DataError if it is not a known one, or not the one that the document names."""
        shape = self.finder.find(Selection(record.values))
        if shape is None:
            self._require_named_columns(record)
            preset = self.finder.conversation.preset
            kind = "of a known shape" if preset == "Auto" else f"of the preset {preset}"
            expected = "chosen and rejected" if self.finder.answers == "pair" else "messages, or of prompt and completion"
            raise DataError(
                f"{record.origin}: the columns hold no conversation {kind} (there are: {list_names(record.values)}): name "
                f"those of {expected} in columns, or set another conversation.preset"
            )
        return shape

    def _require_named_columns(self, record: Record) -> None:
        """Raises DataError for a column that the document names and the record lacks."""
        for role in self.finder.named_roles:
            try:
                select(record.values, getattr(self.finder.columns, role))
            except ColumnError as error:
                raise DataError(f"{record.origin}: {error}: correct columns.{role}") from error

    def _read(self, record: Record, shape: Shape) -> Row:
        stored = Selection(record.values)
        missing = next(shape.missing_columns(stored), None)
        if missing is not None:
            raise DataError(
                f"{record.origin}: there is no column {missing}, which the rows of this source have "
                f"(there are: {list_names(stored)}): correct the row, or put it into a source of its own"
            )
        normalize = normalize_pair if self.finder.answers == "pair" else normalize_conversation
        try:
            values = normalize(shape, stored)
        except NormalizationError as error:
            raise DataError(f"{record.origin}: {error}") from error
        row = Row(values, record.origin, _columns(shape, values, stored))
        _require_no_media(row, stored)
        validate_row(row)
        return row


def _require_no_media(row: Row, stored: Mapping[str, Any]) -> None:
    """Raises DataError for a row with images or the like: a path is one if a text has its placeholder, as in LLaVA's data."""
    for column in MEDIA_KEYS:
        value = stored.get(column)
        is_mentioned = not isinstance(value, str) or any(f"<{column.removesuffix('s')}>" in text for text in texts(row))
        if value and is_mentioned:
            raise DataError(
                f"{row.origin}: column {column} belongs to the conversation, and conversations are trained on as text only: "
                "remove the row or the column"
            )


def _columns(shape: Shape, values: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, str]:
    """The column that each role's value came from, for error messages."""
    columns = shape.columns(stored)
    source = shape.question or next(iter(shape.answers.values()))
    return {role: columns.get(role, source) for role in values}
