"""How the files of a source are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from finetune_trainer.config.file_reading import CSVConfig, TextConfig


@dataclass(frozen=True)
class ReadOptions:
    """The settings of a dataset that decide what a reader yields."""

    columns: tuple[str, ...] | None = None
    """The columns that are read, so that a table can leave out the others; None for all."""
    csv: CSVConfig = CSVConfig()  # noqa: RUF009  # immutable
    text: TextConfig = TextConfig()  # noqa: RUF009  # immutable
    json_records: str | None = None
    """The path of the rows in a JSON document."""
    encoding: str | None = None
    """The name of a Python codec; UTF-8 by default."""

    @property
    def identity(self) -> Any:
        """A JSON value that changes when a reader yields other records."""
        return [self.columns, self.csv.document(), self.text.document(), self.json_records, self.encoding]
