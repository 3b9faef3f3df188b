"""A row of data: the values that an objective reads, by role, and the place that they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic.alias_generators import to_camel

from finetune_trainer.data.records.columns import ColumnError, select, shown
from finetune_trainer.data.records.roles import ROLES
from finetune_trainer.protocol.outcome import ConfigurationError, DataError


class Row(NamedTuple):
    """Values by role. `origin` is the row's file and, where the file has several, its line or row, counted from 1."""

    values: Mapping[str, Any]
    origin: str
    columns: Mapping[str, str]
    """What each role reads: a column, a path or a template; for error messages."""
    task: str | None = None
    """The task that the row belongs to, in a multi-task run."""
    folder: Path | None = None
    """The folder that paths in the values are relative to."""
    examples: Sequence[Row] = ()
    """Solved rows that precede this one in its prompt; only for objectives whose config sets `supports_few_shot`."""

    @property
    def subject(self) -> Any:
        """The value of the first role, which identifies what the row is about."""
        return next(iter(self.values.values()))

    def error_for(self, role: str, problem: str) -> DataError:
        """The error for a value of this row; `problem` names the cause and the remedy."""
        return DataError(f"{self.origin}: column {shown(self.columns[role])} {problem}")


def make_row(record: Mapping[str, Any], columns: Mapping[str, str], origin: str) -> Row:
    """Select what each role reads and validate the values; raises DataError for a missing column or an invalid value."""
    values = {}
    for role, column in columns.items():
        try:
            values[role] = select(record, column)
        except ColumnError as error:
            field = f"columns.{to_camel(role)}"
            remedy = f"set {field} to one of them" if error.lists_columns else f"correct {field}"
            raise DataError(f"{origin}: {error}: {remedy}") from error
    row = Row(values, origin, columns)
    validate_row(row)
    return row


def validate_row(row: Row) -> None:
    """Raises DataError for an invalid value."""
    for role, value in row.values.items():
        if problem := ROLES[role].validate(value):
            raise row.error_for(role, problem)


def texts(row: Row) -> Iterator[str]:
    """All texts of a row, after those of its examples."""
    for source in (*row.examples, row):
        for role, value in source.values.items():
            yield from ROLES[role].texts(value)


def rewrite_texts(row: Row, rewrite: Callable[[str], str], field: str) -> Row:
    """The row with each of its texts rewritten.

    Raises ConfigurationError, beginning with `field`, if a text changes in a column that must keep its characters.
    """
    values = {}
    for role, value in row.values.items():
        rewrite_value = ROLES[role].rewrite
        if rewrite_value is not None:
            value = rewrite_value(value, rewrite)
        elif any(rewrite(text) != text for text in ROLES[role].texts(value)):
            raise ConfigurationError(
                f"{field}: column {shown(row.columns[role])} cannot be altered without the rest of the row becoming invalid "
                f"({row.origin}): choose something else"
            )
        values[role] = value
    return row._replace(values=values)
