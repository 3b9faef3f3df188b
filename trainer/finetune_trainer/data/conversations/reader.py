"""Records that hold conversations become rows in normal form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_trainer.data.conversations.normalize import NormalizationError, normalize_conversation
from finetune_trainer.data.conversations.pairs import normalize_pair
from finetune_trainer.data.conversations.shapes import Shape, ShapeFinder
from finetune_trainer.data.records.record import Record
from finetune_trainer.data.records.row import Row, validate_row
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
        shape = self.finder.find(record.values)
        if shape is None:
            preset = self.finder.conversation.preset
            kind = "of a known shape" if preset == "Auto" else f"of the preset {preset}"
            expected = "chosen and rejected" if self.finder.answers == "pair" else "messages, or of prompt and completion"
            raise DataError(
                f"{record.origin}: the columns hold no conversation {kind} (there are: {_names(record.values)}): name those of "
                f"{expected} in columns, or set another conversation.preset"
            )
        return shape

    def _read(self, record: Record, shape: Shape) -> Row:
        missing = next(shape.missing_columns(record.values), None)
        if missing is not None:
            raise DataError(
                f"{record.origin}: there is no column {missing}, which the rows of this source have "
                f"(there are: {_names(record.values)}): correct the row, or put it into a source of its own"
            )
        normalize = normalize_pair if self.finder.answers == "pair" else normalize_conversation
        try:
            values = normalize(shape, record.values)
        except NormalizationError as error:
            raise DataError(f"{record.origin}: {error}") from error
        row = Row(values, record.origin, _columns(shape, values, record.values))
        validate_row(row)
        return row


def _columns(shape: Shape, values: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, str]:
    """The column that each role's value came from, for error messages."""
    columns = shape.columns(stored)
    source = shape.question or next(iter(shape.answers.values()))
    return {role: columns.get(role, source) for role in values}


def _names(values: Mapping[str, Any]) -> str:
    return ", ".join(map(str, values)) or "none"
