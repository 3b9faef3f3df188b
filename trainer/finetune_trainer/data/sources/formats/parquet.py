"""Parquet tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow
import pyarrow.parquet

from finetune_trainer.data.records.row import Row, make_row
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.formats.base import Format, validate_columns
from finetune_trainer.protocol.outcome import DataError

BATCH_ROWS = 1024


def _read(file: File, columns: Mapping[str, str]) -> Iterator[Row]:
    try:
        with pyarrow.parquet.ParquetFile(file.path, memory_map=True) as table:
            validate_columns(columns, table.schema_arrow.names, file.name)
            number = 0
            for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=list(dict.fromkeys(columns.values()))):
                for record in batch.to_pylist():
                    number += 1
                    yield make_row(record, columns, f"{file.name}:{number}")
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).split("\n", 1)[0]
        raise DataError(f"{file.name}: not a readable Parquet file ({reason}): write it again") from error


PARQUET = Format((".parquet",), _read)
